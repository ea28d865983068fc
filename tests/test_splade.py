"""Learned sparse retrieval: weights, their gradient, regularisers, queries without a model, the index, export, faults."""

import json
import logging
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics, ok
from omegaconf import OmegaConf
from sentence_transformers import SparseEncoder
from tiny_models import MINILM, SIZE, tiny_bert, tiny_llama, tiny_mlm, tiny_model
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, ModernBertConfig

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.measured import differences, measured_on
from uar.evaluation.retrieving import Retrieving
from uar.labels import Example, Stage
from uar.losses import contrastive
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.encode import encode_rows
from uar.retrievers.model_folder import open_model
from uar.retrievers.session import Session
from uar.retrievers.splade import max_logits as max_logits_module
from uar.retrievers.splade import sparse_ranker
from uar.retrievers.splade.max_logits import max_logits
from uar.retrievers.splade.splade_encoder import Splade
from uar.retrievers.vector_index import ExactSearch
from uar.training.batches import BatchStream
from uar.training.checks import check_dimensions
from uar.training.fit import Fitting
from uar.training.module import NO_TERMS, RetrieverModule
from uar.training.schedules import linear

STAGE = Stage("human", [], 1, "all")


@pytest.fixture(scope="module")
def mlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_mlm(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def made(mlm: str, **options: Any) -> Splade:
    return Splade(mlm, **{"query_length": 12, "passage_length": 20, **options}).eval()


def dense(encoder: Splade, collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of all queries and passages."""
    asked, passages = encoder.query_tokens(collection), encoder.passage_tokens(collection)
    rows = list(collection.query_rows.values())
    return encode_rows(encoder, asked, rows, "fp32", "query"), encode_rows(encoder, passages, list(range(6)), "fp32")


def ranked(encoder: Splade, collection: Collection, depth: int, kept: Path | None = None) -> dict:
    with Session(lambda: ExactSearch(precision="fp32", embeddings=kept and str(kept))) as session:
        run = encoder.opened(session).rank(collection, list(collection.queries), depth)
        return {**run, "facts": session.take_facts()}


def test_weights_and_their_gradient_are_those_of_all_logits(mlm: str, toy: Collection, monkeypatch: pytest.MonkeyPatch):
    whole = AutoModelForMaskedLM.from_pretrained(mlm).eval()
    tokens = made(mlm).passage_tokens(toy)
    each = [torch.log1p(torch.relu(whole(torch.from_numpy(tokens[row])[None]).logits[0])).amax(0) for row in range(6)]
    assert dense(made(mlm), toy)[1] == pytest.approx(torch.stack(each).detach().numpy(), abs=1e-5)
    twice = dense(made(mlm, activation="log1p_relu"), toy)[1]
    assert twice == pytest.approx(torch.stack(each).log1p().detach().numpy(), abs=1e-5)
    monkeypatch.setattr(max_logits_module, "LOGITS", 2 * 5 * 30)  # two texts at a time
    torch.manual_seed(0)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    found = []
    for masked in (False, True):
        states, layer = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1), requires_grad=True), nn.Linear(8, 30)
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(2))
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(3))
        of_all = layer(states).masked_fill(~mask[..., None], -torch.inf).amax(1).relu()
        weights = max_logits(states, mask, layer) if masked else of_all
        (weights * torch.linspace(-1, 1, 30)).square().sum().backward()
        found.append([weights.detach(), states.grad, layer.weight.grad, layer.bias.grad])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert 0.1 < (found[0][0] > 0).float().mean() < 1


def test_the_index_ranks_as_by_hand_and_says_how_large_it_is(
    mlm: str, toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sparse_ranker, "SHARD", 4)
    monkeypatch.setattr(sparse_ranker, "AT_ONCE", 2)
    encoder = made(mlm)
    queries, passages = dense(encoder, toy)
    for most in (None, 40):
        encoder = made(mlm, most_tokens=most)
        if most:
            passages = np.where(passages >= np.sort(passages, axis=1)[:, -most][:, None], passages, 0)
        run = ranked(encoder, toy, 4)
        for at, query_id in enumerate(toy.queries):
            scores = {toy.corpus.id(row): float(queries[at] @ passages[row]) for row in range(6)}
            assert dict(run[query_id]) == pytest.approx({d: scores[d] for d, _ in run[query_id]}, rel=2e-3)  # of fp16
            assert [d for d, _ in run[query_id]] == sorted(scores, key=lambda d: -scores[d])[:4]
        each, facts = (passages > 0).sum() / 6, run["facts"]
        assert facts["nonzeros_per_passage"] == pytest.approx(each, rel=1e-3)  # the smallest are none in fp16
        assert facts["nonzeros_per_query"] == pytest.approx((queries > 0).sum() / 3, abs=0.1)
        assert facts["bytes_per_passage"] == pytest.approx(6 * each, abs=600)  # and the heads of files
        with Session(lambda: ExactSearch(precision="fp32")) as session:
            scored = encoder.opened(session).score(toy, {q: ["d2", "d5"] for q in toy.queries} | {"q3": []})
        assert [len(hits) for hits in scored.values()] == [2, 2, 0]
        assert dict(scored["q1"]) == pytest.approx({d: float(queries[0] @ passages[r]) for d, r in (("d2", 1), ("d5", 4))})


def test_an_index_is_gone_on_with_and_refused_where_it_is_cut(
    mlm: str, toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sparse_ranker, "SHARD", 2)
    before = ranked(made(mlm), toy, 6, tmp_path)
    (shard,) = tmp_path.rglob("shard-00001.npz")
    shard.unlink()
    with caplog.at_level(logging.INFO):
        assert ranked(made(mlm), toy, 6, tmp_path) == before
    assert "2 of 3 shards are there" in caplog.text
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(UserError, match="shard-00001.npz: no whole file of sparse vectors"):
        ranked(made(mlm), toy, 6, tmp_path)
    with pytest.raises(UserError, match=r"another model or corpus \(most differ\)"):
        ranked(made(mlm, most_tokens=5), toy, 6, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "log1p_relu", "query_prefix": "query: ", "passage_prefix": "passage: "},
        {"queries": "tokens"},
        {"queries": "tokens", "query_weights": "mini:test", "learn_query_weights": True, "query_length": 3},
    ],
)
def test_an_export_gives_the_same_scores_elsewhere(mlm: str, toy: Collection, tmp_path: Path, options: dict):
    encoder = made(mlm, **options)
    encoder.save(tmp_path / "out")
    theirs = SparseEncoder(str(tmp_path / "out"), device="cpu")
    asked = theirs.encode_query([q.text for q in toy.queries.values()])
    passages = theirs.encode_document([toy.corpus.text(row) for row in range(6)])
    scores = theirs.similarity(asked, passages).numpy()
    again = open_model(str(tmp_path / "out"))
    assert isinstance(again, Splade) and again.lengths == encoder.lengths and again.queries == encoder.queries
    for loaded in (encoder, again.eval()):
        queries, vectors = dense(loaded, toy)
        assert queries @ vectors.T == pytest.approx(scores, rel=1e-5, abs=1e-5)
    assert again.name != encoder.name and (options.get("queries") == "tokens") == (asked.to_dense().count_nonzero() < 40)


def test_queries_without_a_model_are_weights_of_their_tokens(mlm: str, toy: Collection, folder: Path, tmp_path: Path):
    words = made(mlm).tokenizer.get_vocab()
    (tmp_path / "idf.json").write_text(json.dumps({"the": 0.25, "danube": 4.0}))
    by_file = made(mlm, queries="tokens", query_weights=str(tmp_path / "idf.json"))
    query = dense(by_file, toy)[0][2]
    assert {at: float(query[at]) for at in query.nonzero()[0]} == {words["the"]: 0.25, words["danube"]: 4.0}
    by_corpus = made(mlm, queries="tokens", query_weights=f"local:{folder}:test")
    query = dense(by_corpus, toy)[0][0]
    expected = {"what": 0, "pumps": 1, "blood": 1}  # passages of 6 that have it
    assert {at: float(query[at]) for at in query.nonzero()[0]} == pytest.approx(
        {words[word]: np.log(1 + (6 - n + 0.5) / (n + 0.5)) for word, n in expected.items()}, rel=1e-5
    )
    ones = made(mlm, queries="tokens", learn_query_weights=True)
    twice = ones([np.array([words["bees"], words["bees"], words["make"]]), np.array([], int)], role="query")
    assert twice[0].nonzero()[:, 0].tolist() == sorted([words["bees"], words["make"]]) and twice.sum() == 2
    twice.sum().backward()
    assert ones.token_weights is not None and ones.token_weights.parts.grad is not None
    assert ones.mlm.get_output_embeddings().weight.grad is None
    with torch.no_grad():
        ones.token_weights.parts += 0.01
    ones.save(tmp_path / "out")  # and what was learnt is not what it began with, which a resumed run names too
    again = Splade(str(tmp_path / "out"), query_weights="mini:test").token_weights
    assert again is not None and again.now() == pytest.approx(1.5 * torch.ones(30522))
    assert by_file.weights_key() != ones.weights_key() != made(mlm).weights_key()


def stepped(encoder: Splade, toy: Collection, steps: int, **options: Any) -> list[dict[str, float]]:
    """What each step logs, of a training on all of the collection's questions at once."""
    examples = [Example(q, (f"d{n}",), (f"d{n + 3}",), "human") for n, q in enumerate(toy.queries, start=1)]
    stage = Stage("human", examples, steps, "all")
    stream = BatchStream(stage, encoder.query_tokens(toy), toy.query_rows, encoder.passage_tokens(toy), toy.corpus, 3, 2, 0)
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    module = RetrieverModule(encoder, contrastive, optimizer, 0.0, "human", **options)
    module.trainer = SimpleNamespace(global_step=0, estimated_stepping_batches=steps)  # type: ignore[assignment]
    logged: list[dict[str, float]] = []
    module.log = lambda name, value, **_: logged[-1].update({name: float(value.detach())})  # type: ignore[method-assign]
    adam = optimizer(module.parameters())
    for step in range(steps):
        module.trainer.global_step = step
        logged.append({})
        module.training_step(next(iter(stream)), 0).backward()
        adam.step()
        adam.zero_grad()
    return logged


def test_the_loss_falls_and_the_regulariser_makes_vectors_sparse(mlm: str, toy: Collection):
    last = {}
    for penalty, times in (("flops", 0.0), ("flops", 0.05), ("l1", 0.003)):
        encoder = made(mlm, penalty=penalty, query_penalty=times, passage_penalty=times, scale=0.1)
        logged = stepped(encoder, toy, 10)
        assert logged[-1]["human/loss"] < 0.7 * logged[0]["human/loss"]
        assert {f"human/{role}_{penalty}" for role in ("query", "passage")} < logged[0].keys()
        last[penalty, times] = [logged[-1][f"human/{role}_nonzeros"] for role in ("query", "passage")]
    for regularised in list(last.values())[1:]:
        assert all(few < 0.6 * many for few, many in zip(regularised, last["flops", 0.0], strict=True))


def test_penalties_are_of_mean_vectors_and_rise_with_the_square_of_the_step(mlm: str, toy: Collection):
    encoder = made(mlm, query_penalty=2.0, passage_penalty=3.0)
    queries, passages = torch.tensor([[1.0, 0.0], [3.0, 1.0]]), torch.tensor([[1.0, 2.0], [5.0, 0.0], [1.0, 2.0], [9.0, 9.0]])
    rows = torch.tensor([4, 2, 4, -1])  # a passage of two processes, and padding

    def exchange(vectors: torch.Tensor, numbers: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As if another process had one query, (2, 5)."""
        return torch.cat([vectors, torch.tensor([[2.0, 5.0, 1.0]])]), torch.cat([numbers, numbers])

    found, facts = encoder.regularised(queries, passages, rows, exchange)
    assert found["passage_flops"] == pytest.approx(3 * (3**2 + 1**2)) and found["query_flops"] == pytest.approx(2 * (4 + 4))
    assert facts["query_nonzeros"] == 1.5 and facts["passage_nonzeros"] == pytest.approx(5 / 3)
    summed = made(mlm, penalty="l1", query_penalty=2.0, passage_penalty=3.0).regularised(queries, passages, rows, exchange)[0]
    assert (summed["passage_l1"], summed["query_l1"]) == (pytest.approx(3 * 4), pytest.approx(2 * 4))
    assert "query_flops" not in made(mlm, queries="tokens").regularised(queries, passages, rows, exchange)[0]
    module = RetrieverModule(encoder, contrastive, partial(torch.optim.SGD, lr=1.0), 0.0, "human", penalty_warmup=0.5)
    module.trainer = SimpleNamespace(estimated_stepping_batches=8)  # type: ignore[assignment]
    factors = []
    for module.trainer.global_step in range(8):
        factors.append(module._penalty_factor())
    assert factors == [0, 1 / 16, 4 / 16, 9 / 16, 1, 1, 1, 1]
    settings = SimpleNamespace(loss=contrastive, optimizer=None, warmup=0.0, false_negative_margin=None, grad_cache=False)
    settings.schedule, settings.terms = linear, NO_TERMS
    of_stage = [Fitting._module(SimpleNamespace(settings=settings), encoder, STAGE, first) for first in (True, False)]
    assert [made._penalty_warmup for made in of_stage] == [0.33, 0]


def test_an_encoder_of_another_kind_is_refused(mlm: str, tmp_path: Path):
    with pytest.raises(UserError, match="its files are not those of a masked language model with max pooling"):
        Splade(MINILM)
    bare = tiny_bert(tmp_path / "bare")
    for place, why in ((bare, "no weights of cls.predictions"), (tiny_llama(tmp_path / "llama"), "llama")):
        with pytest.raises(UserError, match=rf"it has no masked-language-model head \({why}"):
            Splade(place)
    made(mlm).save(tmp_path / "out")
    with pytest.raises(UserError, match="SpladePooling, which is not supported"):
        BiEncoder(str(tmp_path / "out"))
    with pytest.raises(UserError, match="pooling=cls: .*out is a learned sparse retriever, which has no pooling"):
        open_model(str(tmp_path / "out"), pooling="cls")
    assert open_model(str(tmp_path / "out"), query_length=9).lengths["splade.query_length"] == 9
    pooling = tmp_path / "out" / "1_SpladePooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "pooling_strategy": "sum"}))
    with pytest.raises(UserError, match="with max pooling"):
        Splade(str(tmp_path / "out"))


def test_an_encoder_without_a_head_gets_one_of_its_word_embeddings(toy: Collection, tmp_path: Path):
    made(MINILM, new_head=True, layers=2).save(tmp_path / "out")
    ours = made(str(tmp_path / "out"), new_head=True)  # which it has now, so that none is made
    theirs = SparseEncoder(str(tmp_path / "out"), device="cpu")
    texts = [toy.corpus.text(row) for row in range(6)]
    vectors = theirs.encode_document(texts, convert_to_tensor=True, convert_to_sparse_tensor=False).numpy()
    assert dense(ours, toy)[1] == pytest.approx(vectors, abs=1e-4)  # fp32, whose sums are in another order
    assert dense(made(MINILM, new_head=True, layers=2), toy)[1] == pytest.approx(vectors, abs=1e-4)
    assert 0 < (vectors > 0).mean() < 0.05
    inner = BiEncoder(MINILM, layers=2).encoder.eval()
    ids = torch.tensor(ours.tokenizer(texts)["input_ids"][0])[None]
    states = nn.functional.layer_norm(inner(input_ids=ids).last_hidden_state, (384,), eps=1e-12)
    logits = states @ inner.get_input_embeddings().weight.T + ours.mlm.get_output_embeddings().bias
    torch.testing.assert_close(ours([ids[0].numpy()]), logits.relu().amax(1).log1p(), atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="it has no masked-language-model head"):  # nor a place for one
        Splade(tiny_llama(tmp_path / "llama"), new_head=True)


def test_what_is_before_a_new_head_is_the_identity_whatever_the_size_of_states(tmp_path: Path):
    encoder = AutoModel.from_pretrained(tiny_bert(tmp_path / "small"))
    encoder.encoder.layer[-1].output.LayerNorm.weight.data *= 8
    encoder.save_pretrained(tmp_path / "small")
    mlm, ids = made(str(tmp_path / "small"), new_head=True).mlm, torch.tensor([[101, *range(2000, 2020), 102]])
    states = mlm.bert(input_ids=ids).last_hidden_state
    assert states.min() < -10
    torch.testing.assert_close(mlm(input_ids=ids).logits, nn.functional.layer_norm(states, (32,)), atol=1e-3, rtol=1e-3)


def test_a_new_head_of_a_modernbert_is_the_identity_too(toy: Collection, tmp_path: Path):
    config = ModernBertConfig(vocab_size=30522, **SIZE, pad_token_id=0, cls_token_id=101, sep_token_id=102)
    encoder = made(tiny_model(tmp_path / "given", config), new_head=True)
    ids = torch.tensor([[101, *range(2000, 2020), 102]])
    states = nn.functional.layer_norm(encoder.mlm.model(input_ids=ids).last_hidden_state, (32,))
    torch.testing.assert_close(encoder.mlm(input_ids=ids).logits, states, atol=1e-3, rtol=1e-3)
    encoder.save(tmp_path / "out")
    assert dense(made(str(tmp_path / "out")), toy)[1] == pytest.approx(dense(encoder, toy)[1], abs=1e-5)


def test_a_masked_language_model_that_says_no_kind_is_opened_with_a_word_of_warning(
    mlm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert isinstance(open_model(mlm), BiEncoder)
    assert "it is taken for a bi-encoder; a learned sparse retriever is opened by retriever=splade" in caplog.text
    caplog.clear()
    made(mlm).save(tmp_path / "out")
    assert isinstance(open_model(str(tmp_path / "out")), Splade) and "taken for" not in caplog.text


def test_faults_are_told_in_a_line(mlm: str, toy: Collection, tmp_path: Path):
    (tmp_path / "of.json").write_text('{"bees": 1, "no such token": 2}')
    (tmp_path / "bad.json").write_text('{"bees": -1}')
    for options, told in (
        ({"queries": "idf"}, "retriever.queries='idf' is not known; allowed: model, tokens"),
        ({"activation": "gelu"}, "retriever.activation='gelu' is not known; allowed: relu, log1p_relu"),
        ({"penalty": "l2"}, "retriever.penalty='l2' is not known; allowed: flops, l1"),
        ({"query_penalty": -1}, "retriever.query_penalty=-1"),
        ({"penalty_warmup": 2}, "retriever.penalty_warmup=2"),
        ({"most_tokens": 0}, "retriever.most_tokens=0"),
        ({"scale": 0}, "retriever.scale=0"),
        ({"passage_length": 9999}, "retriever.passage_length=9999"),
        ({"query_weights": "x.json"}, "weights of tokens are of retriever.queries=tokens; set this too, or leave both"),
        ({"queries": "tokens", "query_weights": "x.json"}, "retriever.query_weights=x.json: no such file"),
        ({"queries": "tokens", "query_weights": str(tmp_path / "of.json")}, "1 of its 2 tokens, such as 'no such token'"),
        ({"queries": "tokens", "query_weights": str(tmp_path / "bad.json")}, "no weights from 0 on by token"),
    ):
        with pytest.raises(UserError, match=told):
            made(mlm, **options)
    with pytest.raises(UserError, match="the tokenizer of .* has 30522 tokens, its head 2000"):
        made(tiny_mlm(tmp_path / "few", vocab_size=2000), queries="tokens")
    with pytest.raises(UserError, match=r"training.dimensions=\[8\]: .* makes no vectors whose first numbers"):
        check_dimensions(OmegaConf.create([8]), made(mlm))
    with (
        Session(lambda: ExactSearch(quantize="int8")) as session,
        pytest.raises(UserError, match="leave search=exact as it is, and set retriever.most_tokens"),
    ):
        made(mlm).opened(session).rank(toy, list(toy.queries), 3)


def test_its_lengths_are_its_own(mlm: str):
    search = Retrieving({"precision": "fp32"}, 10)
    dense = BiEncoder(mlm, query_length=64, passage_length=20)
    kinds = dense, made(mlm), made(mlm, query_length=9)
    facts = [measured_on({"measured": search.measured(kind)}, "mini.test") for kind in kinds]
    assert differences([("dense", facts[0]), ("sparse", facts[1])]) == ""
    assert differences([("long", facts[1]), ("short", facts[2])]) == "splade.query length (12: long, 9: short)"


def test_a_run_trains_resumes_and_reports(command: Callable[..., subprocess.CompletedProcess[str]], mlm: str, tmp_path: Path):
    options = ["retriever=splade", f"retriever.model={mlm}", *SMALL, "training.steps=4"]
    places = ["hydra.run.dir=run", "logger=csv", "rag=off", "baselines=[]"]
    told = ok(command("train", *options, *places))
    found = metrics(tmp_path / "run")["retrieval"]["mini.test"]
    assert "numbers that are not 0" in told and 0 < found["R@100"] < 1
    facts = json.loads((tmp_path / "run" / "manifest.json").read_text())["search"]["mini.test"]
    assert facts["bytes_per_passage"] > 6 * facts["nonzeros_per_passage"] > 0 < facts["nonzeros_per_query"]
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "model = SparseEncoder(" in card and "# Learned sparse retriever" in card and "- splade" in card
    assert "query_flops" in next((tmp_path / "run").rglob("metrics.csv")).read_text()
    assert "is loaded" in ok(command("train", *options, *places, "resume=true"))
