"""An exported model gives the same vectors elsewhere; its card tells what is known; it can be pushed."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SMOLLM2
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from tiny_models import tiny_bert, tiny_gpt2, tiny_llama

from uar.errors import UserError
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.model_card import push, write_model_card

TEXTS = ["Salt", "Glass is made of sand.", "The Moon raises the tides " * 20, "Bees make honey."]


def vectors(retriever: BiEncoder, texts: list[str], role: str) -> np.ndarray:
    """As training and evaluation make them: with the prefix, cut at the role's length."""
    prefix, length = (getattr(retriever.settings, f"{role}_{name}") for name in ("prefix", "length"))
    encoded = retriever.tokenizer([prefix + t for t in texts], truncation=True, max_length=length)["input_ids"]
    with torch.inference_mode():
        return retriever.eval()([np.array(row) for row in encoded], role=role).numpy()


def shaken(retriever: BiEncoder) -> BiEncoder:
    """Other weights, as after training."""
    with torch.no_grad():
        for weight in retriever.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.05)
    return retriever


def same_elsewhere(retriever: BiEncoder, folder: Path) -> tuple[SentenceTransformer, BiEncoder]:
    retriever.save(folder)
    own = retriever.settings
    again = BiEncoder(str(folder), query_length=own.query_length, passage_length=own.passage_length)
    other = SentenceTransformer(str(folder), device="cpu")
    short = [t for t in TEXTS if len(t) < 40]  # of a tied model sentence-transformers cuts queries where passages are cut
    for role, encode, texts in (
        ("query", other.encode_query, short if retriever.tied else TEXTS),
        ("passage", other.encode_document, TEXTS),
    ):
        expected = vectors(retriever, texts, role)
        np.testing.assert_allclose(vectors(again, texts, role), expected, atol=1e-5)
        np.testing.assert_allclose(encode(texts), expected, atol=1e-5)
    assert (again.settings.pooling, again.unit, again.tied) == (own.pooling, retriever.unit, retriever.tied)
    assert (again.settings.query_prefix, again.settings.passage_prefix) == (own.query_prefix, own.passage_prefix)
    return other, again


def test_an_exported_model_keeps_both_lengths(tmp_path: Path):
    BiEncoder(tiny_bert(tmp_path / "start"), query_length=20, passage_length=100).save(tmp_path / "model")
    again = BiEncoder(str(tmp_path / "model"))
    assert (again.settings.query_length, again.settings.passage_length) == (20, 100)
    assert BiEncoder(str(tmp_path / "model"), query_length=30).settings.query_length == 30
    assert SentenceTransformer(str(tmp_path / "model"), device="cpu").max_seq_length == 100


def test_other_models_read_as_much_as_they_are_published_to_read(tmp_path: Path):
    place = Path(tiny_bert(tmp_path))
    foreign = BiEncoder(str(place))
    assert (foreign.settings.query_length, foreign.settings.passage_length) == (64, 256)
    for most in (512, 128, 32):
        (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": most}))
        foreign = BiEncoder(str(place))
        assert (foreign.settings.query_length, foreign.settings.passage_length) == (most, most)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_decoder_with_eos_at_the_end(tmp_path: Path, make, normalize: bool):
    model = make(tmp_path / "start")
    retriever = BiEncoder(model, normalize=normalize, query_prefix="Instruct: x\nQuery: ", passage_length=60)
    other, again = same_elsewhere(retriever, tmp_path / "model")
    assert again.settings.pooling == "lasttoken" and other.max_seq_length == 60
    assert other.similarity_fn_name == ("cosine" if normalize else "dot")
    for text in TEXTS:
        assert other.tokenizer(text, truncation=True)["input_ids"][-1] == retriever.tokenizer.eos_token_id


def test_the_packaged_decoder(tmp_path: Path):
    same_elsewhere(BiEncoder(SMOLLM2, layers=1, normalize=True, passage_length=16), tmp_path / "model")


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_two_encoders_become_a_router(tmp_path: Path, lora_rank: int | None):
    model = tiny_bert(tmp_path / "start")
    options = {"normalize": True, "query_prefix": "query: ", "query_length": 12, "passage_length": 24}
    retriever = shaken(BiEncoder(model, tied=False, lora_rank=lora_rank, **options))
    other, again = same_elsewhere(retriever, tmp_path / "model")
    assert not np.allclose(vectors(retriever, TEXTS, "query"), vectors(retriever, TEXTS, "passage"), atol=1e-2)
    np.testing.assert_allclose(other.encode(TEXTS), other.encode_document(TEXTS), atol=1e-6)  # where no role is given
    assert other.similarity_fn_name == "cosine"
    shaken(again).save(tmp_path / "further")
    assert BiEncoder(str(tmp_path / "further")).name != again.name


@pytest.mark.parametrize("make", [tiny_bert, tiny_llama])
def test_weights_in_bf16_stay_so_and_their_adapters_learn_in_fp32(tmp_path: Path, make):
    options = {"normalize": True, "lora_rank": 4}
    whole, half = (BiEncoder(make(tmp_path / "start"), dtype=dtype, **options) for dtype in ("fp32", "bf16"))
    shaken(half)
    adapters = {name: weight for name, weight in half.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in adapters.values()} == {torch.float32}
    assert {w.dtype for n, w in half.encoder.named_parameters() if not w.requires_grad} == {torch.bfloat16}
    whole.load_state_dict({**whole.state_dict(), **adapters})
    found, expected = (vectors(one, TEXTS, "passage") for one in (half, whole))
    assert found.dtype == np.float32 and (found * expected).sum(1).min() > 0.999  # bf16 keeps 8 bits
    texts = [np.array([5, 6, 7]), np.array([8, 9])]
    half(texts).square().sum().backward()
    assert all(weight.grad is not None for weight in adapters.values())
    half.save(tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    again = BiEncoder(str(tmp_path / "model"), dtype="bf16")
    assert (vectors(again, TEXTS, "passage") * found).sum(1).min() > 0.999


@pytest.mark.parametrize("make", [tiny_bert, tiny_llama, tiny_gpt2])
def test_adapters_are_merged_and_stay_in_training(tmp_path: Path, make):
    retriever = shaken(BiEncoder(make(tmp_path / "start"), normalize=True, lora_rank=4))
    before = {n: v.clone() for n, v in retriever.state_dict().items()}
    learning = [n for n, p in retriever.named_parameters() if p.requires_grad]
    base = vectors(BiEncoder(str(tmp_path / "start"), normalize=True), TEXTS, "passage")
    assert not np.allclose(vectors(retriever, TEXTS, "passage"), base, atol=1e-2)
    same_elsewhere(retriever, tmp_path / "model")
    after = retriever.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert [n for n, p in retriever.named_parameters() if p.requires_grad] == learning
    names = []
    for place in ("start", "model"):
        with safe_open(tmp_path / place / "model.safetensors", "pt") as file:
            names.append(sorted(file.keys()))
    assert names[0] == names[1] and not (tmp_path / "model" / "adapter_config.json").exists()


FACTS = {
    "collection": "local:/home/someone/data/wiki:train",
    "collection_hash": "c0ffee",
    "labels": [{"stage": "llm", "source": "llm", "positives": 120}, {"stage": "human", "source": "human", "positives": 8}],
    "label_hash": "1abe1",
    "loss": ["summed_marginal", "summed_marginal"],
    "retriever": "owner/base@main",
    "metrics": {"retrieval": {"wiki.test": {"nDCG@10": 0.625, "RR@10": 0.5}, "mini.test": {"nDCG@10": 0.75}}, "rag": {}},
    "git_commit": "abc123",
    "license": "mit",
    "data_license": "cc-by-sa-4.0",
}


def card(folder: Path, facts: dict) -> tuple[dict, str]:
    write_model_card(folder, {"kind": BiEncoder.kind, **facts})
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_card_tells_the_facts(tmp_path: Path):
    BiEncoder(tiny_bert(tmp_path / "start"), query_prefix="query: ").save(tmp_path / "model")
    front, body = card(tmp_path / "model", FACTS | {"datasets": ["owner/wiki"]})
    assert front["library_name"] == "sentence-transformers" and "sentence-transformers" in front["tags"]
    assert (front["license"], front["base_model"], front["datasets"]) == ("mit", "owner/base", ["owner/wiki"])
    for told in (
        "- Collection: `local:wiki:train`",
        "- Content hash: `c0ffee`",
        "- Licence of the data: cc-by-sa-4.0",
        "| human | human | 8 |",
        "- Loss: `summed_marginal`\n",
        "- Starting from: `owner/base@main`",
        "- Commit of the code: `abc123`",
        "| Collection | nDCG@10 | RR@10 |\n| --- | --- | --- |\n| wiki.test | 0.6250 | 0.5000 |\n| mini.test | 0.7500 |  |",
        "A query begins with `'query: '`",
        'SentenceTransformer("MODEL")',
        "python -m uar.evaluate model=MODEL",
    ):
        assert told in body, told
    assert "/home/someone" not in body
    assert SentenceTransformer(str(tmp_path / "model"), device="cpu").prompts["query"] == "query: "


def test_a_card_of_an_own_kind_names_the_folder_of_its_config(tmp_path: Path):
    _, body = card(tmp_path, {"own_kind": True})
    assert "(`DIR`: the folder of configs that names this kind)" in body
    assert "python -m uar.evaluate --config-dir DIR model=MODEL 'collections=[mini:test]'" in body
    assert "--config-dir" not in card(tmp_path, {"own_kind": False})[1]


def test_a_card_invents_nothing(tmp_path: Path):
    front, body = card(tmp_path, dict.fromkeys(FACTS) | {"retriever": "model@c0ffee"})
    assert set(front) == {"library_name", "pipeline_tag", "tags"}
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        "# Dense retriever",
        "## Training",
        "## How to use",
    ]
    assert "None" not in body and "null" not in body


def test_a_card_names_its_repository(tmp_path: Path):
    _, body = card(tmp_path, {"repo": "owner/mine"})
    assert "# owner/mine" in body and 'SentenceTransformer("owner/mine")' in body and "MODEL" not in body


def test_a_push_without_a_hub_keeps_the_model_and_says_how_to_go_on(tmp_path: Path):
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set") as error:
        push(tmp_path, "owner/mine", private=True)
    assert f"kept, push it later with: hf upload owner/mine {tmp_path} . --private" in str(error.value)
    assert "\n" not in str(error.value)


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as an upload of small files asks for."""

    token = "hf_right"
    files: dict[str, bytes]
    repos: list[dict]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {self.token}":
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            self.repos.append(json.loads(body))
            return self._answer(200, {"url": f"http://{self.headers['Host']}/owner/mine"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return self._answer(200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        if self.path == "/api/validate-yaml":  # of the card's front matter
            return self._answer(200, {"errors": [], "warnings": []})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self._answer(200, {"commitUrl": f"http://{self.headers['Host']}/owner/mine/commit/0", "commitOid": "0" * 40})

    def do_GET(self) -> None:
        self._answer(200, {"id": "owner/mine", "sha": "0" * 40, "siblings": []})

    def _answer(self, status: int, value: dict) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("Handler", (Hub,), {"files": {}, "repos": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def pushed(folder: Path, endpoint: str, token: str, home: Path) -> str:
    """What a process that may ask `endpoint` returns or raises; these settings are read when it starts."""
    code = f"""
from pathlib import Path
from uar.errors import UserError
from uar.retrievers.model_card import push
try:
    print(push(Path({str(folder)!r}), "owner/mine", True))
except UserError as error:
    print("told:", error)
"""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_a_model_is_pushed(tmp_path: Path):
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "README.md").write_text("card")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    with hub() as (endpoint, seen):
        assert pushed(folder, endpoint, "hf_right", tmp_path / "home") == f"{endpoint}/owner/mine"
    assert seen.files == {"README.md": b"card", "1_Pooling/config.json": b"{}"}
    (made,) = seen.repos
    assert made["name"] == "mine" and (made.get("private") or made.get("visibility") == "private")


def test_a_push_that_the_hub_refuses_or_that_does_not_reach_it_is_told(tmp_path: Path):
    with hub() as (endpoint, seen):
        told = pushed(tmp_path, endpoint, "hf_wrong", tmp_path / "home")
    assert "told: hub.repo=owner/mine: not pushed (no valid token: run `hf auth login` or set HF_TOKEN)" in told
    assert not seen.repos and "\n" not in told
    told = pushed(tmp_path, endpoint, "hf_right", tmp_path / "home")
    assert "told: hub.repo=owner/mine: not pushed (" in told and "refused" in told and "hf upload owner/mine" in told
