"""A published model gives here what it gives in sentence-transformers, and is scored as its files say."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tiny_models import tiny_bert, tiny_llama
from torch import nn

from uar.errors import UserError
from uar.retrievers.bi_encoder.encoder import BiEncoder

QUERIES = ["Who makes HONEY?", "Why are there tides in the sea, and who saw them first " * 8]
PASSAGES = ["Bees make Honey.", "Salt", "Glass is made of SAND. " * 60]
POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("mean", "cls")]


def published(folder: Path, modules: list[nn.Module], make: Any = tiny_bert, **options: Any) -> str:
    """A folder that sentence-transformers wrote."""
    transformer = Transformer(make(folder / "start"))
    torch.manual_seed(1)
    SentenceTransformer(modules=[transformer, *modules], device="cpu", **options).save(str(folder / "model"))
    return str(folder / "model")


def same(folder: str, **options: Any) -> tuple[BiEncoder, SentenceTransformer]:
    """The two as they read the folder, with the same vectors and scores."""
    ours, theirs = BiEncoder(folder, **options).eval(), SentenceTransformer(folder, device="cpu")
    vectors = []
    for role, texts, prefix, length in (
        ("query", QUERIES, ours.settings.query_prefix, ours.settings.query_length),
        ("passage", PASSAGES, ours.settings.passage_prefix, ours.settings.passage_length),
    ):
        encoded = ours.tokenizer([prefix + text for text in texts], truncation=True, max_length=length)["input_ids"]
        with torch.inference_mode():
            vectors.append(ours([np.array(ids) for ids in encoded], role=role))
    own = [theirs.encode_query(QUERIES), theirs.encode_document(PASSAGES)]
    for mine, other in zip(vectors, own, strict=True):
        compared = nn.functional.normalize(torch.tensor(other), dim=-1) if ours.settings.normalize else other
        np.testing.assert_allclose(mine, compared, atol=1e-5)
    np.testing.assert_allclose(vectors[0] @ vectors[1].T, theirs.similarity(*own), atol=1e-4, rtol=1e-5)
    return ours, theirs


@pytest.mark.parametrize("mode", POOLINGS)
@pytest.mark.parametrize("make", [tiny_bert, tiny_llama])
def test_every_pooling(tmp_path: Path, mode: Any, make: Any):
    def with_pad(folder: Path) -> str:
        return make(folder, **({"pad_token": "!"} if make is tiny_llama else {}))

    ours, _ = same(published(tmp_path, [Pooling(32, mode), Normalize()], with_pad))
    assert ours.dim == (64 if isinstance(mode, tuple) else 32)
    ours.save(tmp_path / "again")
    assert same(str(tmp_path / "again"))[0].settings.pooling == ours.settings.pooling


@pytest.mark.parametrize(("similarity", "normalized"), [("cosine", True), ("dot", False)])
@pytest.mark.parametrize("normalize", [[], [Normalize()]])
def test_the_similarity_that_the_files_name(tmp_path: Path, similarity: str, normalized: bool, normalize: list):
    ours, _ = same(published(tmp_path, [Pooling(32), *normalize], similarity_fn_name=similarity))
    assert ours.settings.normalize == (normalized or bool(normalize))


def test_a_similarity_that_is_no_inner_product_is_refused(tmp_path: Path):
    folder = published(tmp_path, [Pooling(32)], similarity_fn_name="euclidean")
    with pytest.raises(UserError, match="compared by euclidean; models of cosine and dot are supported") as error:
        BiEncoder(folder)
    assert "\n" not in str(error.value)


def test_a_similarity_that_no_file_names_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    folder = Path(published(tmp_path, [Pooling(32)]))
    config = folder / "config_sentence_transformers.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"similarity_fn_name": None}))
    assert not BiEncoder(str(folder)).settings.normalize and "names no similarity" in caplog.text
    assert same(str(folder), normalize=True)[0].settings.normalize  # as sentence-transformers compares where nothing is said


@pytest.mark.parametrize(
    "layers",
    [
        [Dense(32, 16)],
        [Dense(32, 48, bias=False, activation_function=nn.Identity()), Dense(48, 8, activation_function=nn.GELU())],
    ],
)
@pytest.mark.parametrize("normalize", [[], [Normalize()]])
def test_dense_layers(tmp_path: Path, layers: list[nn.Module], normalize: list):
    ours, _ = same(published(tmp_path, [Pooling(32), *layers, *normalize], similarity_fn_name="dot"))
    assert ours.dim == layers[-1].out_features and len(ours.head) == len(layers)
    assert BiEncoder(str(tmp_path / "model"), lora_rank=2).head[0].linear.weight.requires_grad is False
    with torch.no_grad():
        ours.head[0].linear.weight.mul_(1.5)
    ours.save(tmp_path / "again")
    again, _ = same(str(tmp_path / "again"))
    torch.testing.assert_close(again.head.state_dict(), ours.head.state_dict())


@pytest.mark.parametrize(
    "change", [{"use_residual": True}, {"activation_function": "os.system"}, {"module_input_name": "token_embeddings"}]
)
def test_a_dense_layer_of_another_kind_is_refused(tmp_path: Path, change: dict):
    folder = Path(published(tmp_path, [Pooling(32), Dense(32, 16)]))
    config = folder / "2_Dense" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match="2_Dense is no linear layer with an activation of torch.nn") as error:
        BiEncoder(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("most", [12, 300, None])
def test_texts_are_cut_where_the_model_is_published_to_cut_them(tmp_path: Path, most: int | None):
    folder = Path(published(tmp_path, [Pooling(32), Normalize()]))
    config = folder / "sentence_bert_config.json"
    content = {name: value for name, value in json.loads(config.read_text()).items() if name != "max_seq_length"}
    config.write_text(json.dumps(content | ({} if most is None else {"max_seq_length": most})))
    ours, theirs = same(str(folder))
    assert ours.settings.query_length == ours.settings.passage_length == theirs.max_seq_length == (most or 512)


def test_lower_case(tmp_path: Path):
    folder = Path(published(tmp_path, [Pooling(32), Normalize()], tiny_llama_with_pad))
    cased = same(str(folder))[0]
    config = folder / "sentence_bert_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"do_lower_case": True}))
    ours, _ = same(str(folder))
    assert (
        ours.tokenizer("HONEY")["input_ids"] == cased.tokenizer("honey")["input_ids"] != cased.tokenizer("HONEY")["input_ids"]
    )
    ours.save(tmp_path / "again")
    assert same(str(tmp_path / "again"))[0].tokenizer("HONEY") == ours.tokenizer("HONEY")


def tiny_llama_with_pad(folder: Path) -> str:
    return tiny_llama(folder, pad_token="!")


@pytest.mark.parametrize("prompts", [{"query": "Question: ", "document": "Text: "}, {"query": "Q: "}, {"other": "x: "}])
def test_prompts(tmp_path: Path, prompts: dict[str, str]):
    ours, _ = same(published(tmp_path, [Pooling(32), Normalize()], prompts=prompts, default_prompt_name=list(prompts)[-1]))
    own = ours.settings
    assert (own.query_prefix, own.passage_prefix) == (prompts.get("query", ""), prompts.get("document", ""))


def test_evaluate_takes_what_the_files_do_not_say(tmp_path: Path, command: Callable):
    given = ["pooling=cls", "normalize=true", "query_prefix='what: '", "passage_prefix='is '", "revision=v1", "query_length=9"]
    model = f"model={tiny_bert(tmp_path / 'bert')}"
    runs = []
    for options in ([], given):
        done = command("uar.evaluate", model, "collections=[mini:test]", *options, f"hydra.run.dir={tmp_path / 'run'}")
        assert done.returncode == 0, done.stderr
        runs.append((tmp_path / "run" / "runs" / "mini.test.trec").read_text())
    assert "reads queries of up to 9 tokens" in done.stdout + done.stderr
    assert "pooling cls, cosine, before queries 'what: ', before passages 'is '" in done.stdout + done.stderr
    assert runs[0] != runs[1]
