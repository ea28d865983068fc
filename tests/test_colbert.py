"""A vector a token: MaxSim, indexes in fp16 and as residuals, training, export to sentence-transformers, faults."""

import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics, ok
from sentence_transformers import MultiVectorEncoder
from tiny_models import tiny_bert, tiny_llama

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.measured import differences, measured_on
from uar.evaluation.retrieving import Retrieving
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.colbert import max_sim as max_sim_module
from uar.retrievers.colbert import token_index
from uar.retrievers.colbert.colbert_encoder import ColBERT
from uar.retrievers.colbert.max_sim import NOTHING, max_sim, max_sim_flat
from uar.retrievers.colbert.residuals import Residuals
from uar.retrievers.encode import encode_rows
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch, FaissSearch
from uar.training.checks import check_dimensions


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def made(bert: str, **options: Any) -> ColBERT:
    return ColBERT(bert, **{"dim": 16, "query_length": 12, "passage_length": 20, **options}).eval()


def ranked(encoder: ColBERT, collection: Collection, depth: int, kept: Path | None = None) -> dict:
    with Session(lambda: ExactSearch(precision="fp32", embeddings=kept and str(kept))) as session:
        run = encoder.opened(session).rank(collection, list(collection.queries), depth)
        return {**run, "facts": session.take_facts()}


def by_hand(encoder: ColBERT, collection: Collection) -> dict[str, dict[str, float]]:
    """Scores of all passages, a text at a time."""
    scores: dict[str, dict[str, float]] = {}
    tokens, asked = encoder.passage_tokens(collection), encoder.query_tokens(collection)
    passages = [encode_rows(encoder, tokens, [row], "fp32")[0] for row in range(len(tokens))]
    for query_id, row in collection.query_rows.items():
        (query,) = encode_rows(encoder, asked, [row], "fp32", role="query")
        query = query[query[:, -1] > 0, :-1]
        products = [query @ passage[passage[:, -1] > 0, :-1].T for passage in passages]
        scores[query_id] = {collection.corpus.id(at): float(p.max(axis=1).sum()) for at, p in enumerate(products)}
    return scores


def test_max_sim_sums_the_best_product_of_each_query_vector(monkeypatch: pytest.MonkeyPatch):
    query = torch.tensor([[[1.0, 0.0, 1], [0.0, 2.0, 1], [9.0, 9.0, 0]]])  # the third only fills up
    passages = torch.tensor([[[3.0, 1.0, 1], [-1.0, -4.0, 1]], [[-2.0, -1.0, 1], [5.0, 5.0, 0]]], requires_grad=True)
    assert max_sim(query, passages).tolist() == [[3 + 2, -2 - 2]]
    max_sim(query, passages).sum().backward()
    assert passages.grad is not None and passages.grad[1, 1].abs().sum() == 0
    flat, ends = np.float32([[-2, -1], [-1, -4], [3, 1]]), np.array([0, 1, 1, 3, 3])
    for memory in (1, 1 << 25):
        monkeypatch.setattr(max_sim_module, "PRODUCTS", memory)
        found = max_sim_flat(np.float32([[1, 0], [0, 2], [1, 0]]), np.array([0, 2, 3]), flat, ends)
        assert found == pytest.approx(np.array([[-4, NOTHING, 5, NOTHING], [-2, NOTHING, 3, NOTHING]]))


def test_an_index_in_fp16_ranks_as_by_hand(bert: str, toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_index, "SHARD", 4)
    encoder = made(bert)
    expected, run = by_hand(encoder, toy), ranked(encoder, toy, 4, tmp_path / "kept")
    for query_id, scores in expected.items():
        hits = run[query_id]
        assert dict(hits) == pytest.approx({d: scores[d] for d, _ in hits}, abs=1e-2)  # of fp16
        assert len(hits) == 4 and min(s for _, s in hits) > max(scores[d] for d in scores if d not in dict(hits)) - 1e-2
    vectors = int(np.minimum(encoder.passage_tokens(toy).lengths(), 20).sum())
    assert run["facts"]["bytes_per_passage"] == pytest.approx((2 * 16 * vectors) / 6, abs=150)  # and the heads of files
    with Session(lambda: ExactSearch(precision="fp32")) as session:
        scored = encoder.opened(session).score(toy, {q: ["d2", "d5"] for q in toy.queries})
    assert {q: dict(hits) for q, hits in scored.items()} == {
        q: pytest.approx({d: of[d] for d in ("d2", "d5")}, abs=1e-4) for q, of in expected.items()
    }


def test_residuals_come_near_to_their_vectors():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 16))
    vectors = (centres.repeat(60, axis=0) + 0.3 * rng.standard_normal((1200, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = []
    for bits in (1, 2, 4):
        learnt = Residuals.learn(vectors, 1.0, bits, 20)
        codes, packed = learnt.encode(vectors)
        decoded = learnt.decode(codes, packed)
        assert packed.shape == (1200, 16 * bits // 8) and learnt.bits == bits
        assert np.linalg.norm(decoded, axis=1) == pytest.approx(1)
        nearest = np.argmax(vectors @ learnt.centroids.T, axis=1)
        level = np.searchsorted(learnt.cuts, vectors - learnt.centroids[nearest])
        naive = learnt.centroids[nearest] + learnt.values[level]
        assert decoded == pytest.approx(naive / np.linalg.norm(naive, axis=1, keepdims=True), abs=1e-6)
        near.append(float((decoded * vectors).sum(axis=1).mean()))
    assert near[0] < near[1] < near[2] and near[1] > 0.97
    assert len(Residuals.learn(vectors, 1.0, 2, None).centroids) == 1200 // 32  # fewer than 16 times the root


def test_residuals_and_candidates_find_what_exact_search_finds(bert: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    mini = open_collection("mini:test")
    mini = replace(mini, queries=dict(list(mini.queries.items())[:12]))
    form = {"index": "residual", "bits": 4, "centroids": 256}
    with caplog.at_level(logging.INFO):
        whole = ranked(made(bert), mini, 10)
        compressed = ranked(made(bert, **form), mini, 10, tmp_path / "kept")
        few = ranked(made(bert, **form, candidates=150, probes=8), mini, 10, tmp_path / "kept")
        every = ranked(made(bert, **form, candidates=584, probes=256), mini, 10, tmp_path / "kept")
    assert caplog.text.count("Indexed 584 passages") == 2  # the second index serves three searches
    shared = [len(dict(whole[q]).keys() & dict(compressed[q])) for q in mini.queries]
    assert sum(shared) >= 0.8 * 10 * len(shared)
    for q in mini.queries:  # products of other shapes may round otherwise in the last bit
        assert dict(every[q]) == pytest.approx(dict(compressed[q]), abs=1e-5)
    kept = [len(dict(compressed[q]).keys() & dict(few[q])) for q in mini.queries]
    assert sum(kept) >= 0.6 * 10 * len(kept)
    for q in mini.queries:
        assert dict(few[q]) == pytest.approx({d: dict(compressed[q]).get(d, s) for d, s in few[q]}, abs=1e-5)
    assert compressed["facts"]["bytes_per_passage"] < 0.8 * whole["facts"]["bytes_per_passage"]


def test_an_index_is_gone_on_with_and_refused_where_it_is_cut(
    bert: str, toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(token_index, "SHARD", 2)
    encoder = made(bert)
    before = ranked(encoder, toy, 6, tmp_path)
    (ends,) = tmp_path.rglob("shard-00001-ends.npy")
    ends.unlink()
    with caplog.at_level(logging.INFO):
        assert ranked(encoder, toy, 6, tmp_path) == before
    assert "2 of 3 shards are there" in caplog.text
    vectors = ends.with_name("shard-00001-vectors.npy")
    vectors.write_bytes(vectors.read_bytes()[:-8])
    with pytest.raises(UserError, match="shard-00001-vectors.npy: no whole .* remove it, and it is made again"):
        ranked(encoder, toy, 6, tmp_path)
    vectors.unlink()
    assert ranked(encoder, toy, 6, tmp_path) == before
    with pytest.raises(UserError, match=r"another model or corpus \(weights differ\)"):
        ranked(made(bert, skip_punctuation=True), toy, 6, tmp_path)


def test_any_file_of_a_compressed_index_is_made_again(
    bert: str, toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(token_index, "SHARD", 3)
    encoder = made(bert, index="residual", centroids=8, candidates=6, probes=8)
    before = ranked(encoder, toy, 6, tmp_path)
    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == 2 * 5 + 3
    for path in files:
        path.unlink()
        assert ranked(encoder, toy, 6, tmp_path) == before, path.name
    np.save(files[0].with_name("centroids.npy"), np.load(files[0].with_name("centroids.npy"))[::-1])  # of another learning
    files[0].with_name("cuts.npy").unlink()
    assert ranked(encoder, toy, 6, tmp_path) == before


@pytest.mark.parametrize("options", [{}, {"expand_queries": False, "skip_punctuation": True, "query_prefix": "search: "}])
def test_an_export_gives_the_same_scores_elsewhere(bert: str, toy: Collection, tmp_path: Path, options: dict):
    encoder = made(bert, **options)
    encoder.save(tmp_path / "out")
    theirs = MultiVectorEncoder(str(tmp_path / "out"), device="cpu")
    asked = theirs.encode_query([q.text for q in toy.queries.values()])
    passages = theirs.encode_document([toy.corpus.text(row) for row in range(6)])
    scores = theirs.similarity(asked, passages).numpy()
    again = ColBERT(str(tmp_path / "out")).eval()
    for loaded in (encoder, again):
        expected = by_hand(loaded, toy)
        assert scores == pytest.approx(np.array([list(of.values()) for of in expected.values()]), abs=1e-4)
    assert again.settings == encoder.settings and len(asked[0]) == (7 if options else 12)


def test_a_passage_prefix_has_any_name_that_sentence_transformers_reads(bert: str, tmp_path: Path):
    made(bert, passage_prefix="text: ").save(tmp_path)
    settings = tmp_path / "config_sentence_transformers.json"
    settings.write_text(settings.read_text().replace('"document"', '"passage"'))
    assert MultiVectorEncoder(str(tmp_path), device="cpu").prompts["passage"] == "text: "
    assert ColBERT(str(tmp_path)).settings.passage_prefix == "text: "


def test_passages_have_one_shape_and_padding_no_vector(bert: str):
    encoder = made(bert, skip_punctuation=True)
    dot = encoder.tokenizer.convert_tokens_to_ids(".")
    short, long = np.array([101, 2000, dot, 102]), np.arange(2000, 2020)
    with torch.inference_mode():
        found = encoder([short, long])
        queries = encoder([short], role="query")
        cached = encoder([short, long], cached=True)
    assert found.shape == (2, 20, 17) and found[0, :, -1].tolist() == [1, 1, 0, 1] + [0] * 16 and found[1, :, -1].all()
    assert found[..., :-1].norm(dim=-1).flatten().tolist() == pytest.approx(found[..., -1].flatten().tolist(), abs=1e-5)
    assert queries.shape == (1, 12, 17) and queries[0, :, -1].all() and torch.equal(found, cached)


@pytest.mark.parametrize("search", [ExactSearch(dimensions=8), FaissSearch()])
def test_a_search_of_single_vectors_is_refused(bert: str, toy: Collection, search: ExactSearch):
    with (
        Session(lambda: search) as session,
        pytest.raises(UserError, match="leave search=exact as it is, and set retriever.index"),
    ):
        made(bert).opened(session).rank(toy, list(toy.queries), 3)
    with pytest.raises(UserError, match=r"training.dimensions=\[8\]: .* makes no vectors whose first numbers"):
        check_dimensions([8], made(bert))


def test_faults_are_told_in_a_line(bert: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for options, told in (
        ({"index": "pq"}, "retriever.index='pq' is not known; allowed: fp16, residual"),
        ({"index": "residual", "bits": 3}, "retriever.bits=3"),
        ({"candidates": 10}, "retriever.candidates is of an index of centroids; set retriever.index=residual, or leave"),
        ({"bits": 1}, "retriever.bits is of an index of centroids"),
        ({"centroids": 16}, "retriever.centroids is of an index of centroids"),
        ({"probes": 8}, "retriever.probes is of an index of centroids"),
        ({"index": "residual", "probes": 8}, "retriever.probes=8 is of candidates; set retriever.candidates too"),
        ({"index": "residual", "candidates": 5, "probes": 0}, "retriever.probes=0"),
        ({"scale": 0}, "retriever.scale=0"),
        ({"passage_length": 9999}, "retriever.passage_length=9999"),
    ):
        with pytest.raises(UserError, match=told):
            made(bert, **options)
    with pytest.raises(UserError, match="has no mask token; set it to false"):
        made(tiny_llama(tmp_path / "llama", pad_token="<|endoftext|>"))
    caplog.clear()
    made(bert).save(tmp_path / "out")
    assert "tiny has no layer that makes a vector a token: one is drawn, which has to be trained" in caplog.text
    caplog.clear()
    ColBERT(str(tmp_path / "out"))
    assert "is drawn" not in caplog.text
    with pytest.raises(UserError, match="retriever.dim=128: the vectors of .* have 16 numbers"):
        ColBERT(str(tmp_path / "out"), dim=128)
    config = tmp_path / "out" / "1_Dense" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bias": True}))
    with pytest.raises(UserError, match="its files are not those of"):
        ColBERT(str(tmp_path / "out"))


def test_a_run_trains_resumes_and_reports(command: Callable[..., subprocess.CompletedProcess[str]], bert: str, tmp_path: Path):
    options = ["retriever=colbert", f"retriever.model={bert}", "retriever.layers=null", "retriever.dim=16", *SMALL]
    places = ["hydra.run.dir=run", "logger=none", "rag=off", "baselines=[untrained]", "retriever.index=residual"]
    told = ok(command("train", *options, *places))
    found = metrics(tmp_path / "run")["retrieval"]["mini.test"]
    assert "bytes a passage" in told and 0 < found["R@100"] < 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert 0 < manifest["search"]["mini.test"]["bytes_per_passage"] < 5_000
    assert MultiVectorEncoder(str(tmp_path / "run" / "model"), device="cpu").get_embedding_dimension() == 16
    ok(command("train", *options, *places, "resume=true"))
    one_step = ["trainer.max_steps=1", "dataset.dev=null", "dataset.test=[]", "hydra.run.dir=fast", "logger=none", "rag=off"]
    ok(command("train", *options, *one_step))


def test_runs_of_colbert_and_of_a_bi_encoder_are_compared_though_each_reads_its_own_lengths(bert: str):
    search = Retrieving({"precision": "fp32"}, 10)
    kinds = {
        "one": BiEncoder(bert, query_length=64, passage_length=20),
        "many": made(bert, query_length=32),
        "more": made(bert, query_length=12),
    }
    facts = {name: measured_on({"measured": search.measured(ranker)}, "mini.test") for name, ranker in kinds.items()}
    assert differences((name, facts[name]) for name in ("one", "many")) == ""
    assert differences((name, facts[name]) for name in ("many", "more")) == "colbert.query length (32: many, 12: more)"
