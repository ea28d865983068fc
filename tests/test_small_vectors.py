"""Vectors cut to their first numbers, bytes and bits: made in one pass, searched, scored again, learnt, exported."""

import json
import logging
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, ok
from omegaconf import OmegaConf
from sentence_transformers import SentenceTransformer
from tiny_models import tiny_bert

from uar.collections import open_collection
from uar.errors import UserError
from uar.losses import contrastive, kl
from uar.retrievers import rescoring, small_vectors
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.encode import encode_many
from uar.retrievers.trainable import Scored, Texts
from uar.retrievers.vector_index import ExactSearch, FaissSearch
from uar.retrievers.vector_shards import Rows, evenly, load_shard
from uar.storage.files import write_json
from uar.training.batches import Batch
from uar.training.checks import check_dimensions
from uar.training.module import RetrieverModule

DIM, SHORT = 20, 12  # bits of the last byte are left over


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def whole(tmp_path: Path) -> list[Path]:
    """600 vectors of length 1 in three files, some of them twice."""
    vectors = unit(np.random.default_rng(0).standard_normal((600, DIM)))
    vectors[300:310] = vectors[:10]
    places = [tmp_path / "vectors" / f"shard-{number}.npy" for number in range(3)]
    places[0].parent.mkdir()
    for place, part in zip(places, np.split(vectors.astype(np.float16), [250, 500]), strict=True):
        np.save(place, part)
    write_json(tmp_path / "vectors" / "manifest.json", {"weights": "first"})
    return places


@pytest.fixture
def queries() -> np.ndarray:
    return unit(np.random.default_rng(1).standard_normal((7, DIM))).astype(np.float32)


def first(scores: np.ndarray, k: int, ranks: np.ndarray) -> np.ndarray:
    """Rows of the k best a query, the lowest rank first among equals."""
    return np.stack([np.lexsort((ranks, -row))[:k] for row in scores])


def vectors_of(whole: list[Path]) -> np.ndarray:
    return np.concatenate([np.load(shard) for shard in whole]).astype(np.float32)


def test_the_first_numbers_are_searched_at_length_one(whole: list[Path], queries: np.ndarray):
    short = unit(vectors_of(whole)[:, :SHORT]).astype(np.float16).astype(np.float32)
    expected = unit(queries[:, :SHORT]) @ short.T
    search = ExactSearch(dimensions=SHORT, rescore=0)
    scores, rows = search.best(queries, whole, 30, unit=True)
    assert (rows == first(expected, 30, np.arange(600))).all() and search.facts["bytes_per_passage"] == 2 * SHORT
    assert scores == pytest.approx(np.take_along_axis(expected, rows, 1), abs=1e-6)
    dot = queries[:, :SHORT] @ vectors_of(whole)[:, :SHORT].T
    _, rows = ExactSearch(dimensions=SHORT, rescore=0).best(queries, whole, 30, unit=False)
    assert (rows == first(dot, 30, np.arange(600))).all()


def test_bytes_lie_between_the_extremes_of_their_number(whole: list[Path], queries: np.ndarray):
    vectors = vectors_of(whole)
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    step = (high - low) / 255
    decoded = low + step * np.rint((vectors - low) / step)
    assert np.abs(decoded - vectors).max() <= step.max() / 2 + 1e-6
    search = ExactSearch(quantize="int8", rescore=0)
    scores, rows = search.best(queries, whole, 30, unit=True)
    expected = queries @ decoded.T
    assert scores == pytest.approx(-np.sort(-expected, axis=1)[:, :30], abs=1e-5)  # fp32 sums of 20 products of up to 128
    assert (rows == first(np.round(expected, 6), 30, np.arange(600))).mean() > 0.98
    assert search.facts["bytes_per_passage"] == DIM
    assert load_shard(whole[0].parent / f"int8-{DIM}" / whole[0].name).dtype == np.int8


@pytest.mark.parametrize("memory", [1, 1 << 26])
def test_bits_are_ranked_by_hamming_distance_and_then_by_id(
    whole: list[Path], queries: np.ndarray, monkeypatch: pytest.MonkeyPatch, memory: int
):
    monkeypatch.setattr(small_vectors, "HAMMING", memory)
    signs = np.where(vectors_of(whole)[:, :SHORT] > 0, 1, -1)
    cosine = np.where(queries[:, :SHORT] > 0, 1, -1) @ signs.T / SHORT
    ranks = np.random.default_rng(2).permutation(600)
    search = ExactSearch(dimensions=SHORT, quantize="binary", rescore=0)
    scores, rows = search.best(queries, whole, 30, lambda: ranks, unit=True)
    expected = first(cosine, 30, ranks)
    assert [set(found) for found in rows.tolist()] == [set(found) for found in expected.tolist()]
    assert scores == pytest.approx(np.take_along_axis(cosine, expected, 1)) and search.facts["bytes_per_passage"] == 2


@pytest.mark.parametrize("form", [{"quantize": "int8"}, {"quantize": "binary"}, {"dimensions": 4}])
def test_candidates_are_scored_again_with_the_whole_vectors(
    whole: list[Path], queries: np.ndarray, form: dict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(rescoring, "NUMBERS", 2_000)  # one query at a time
    exact_scores, exact = ExactSearch().best(queries, whole, 10)
    found = {}
    for rescore in (0, 2, 60):
        search = ExactSearch(rescore=rescore, **form)
        with caplog.at_level(logging.INFO):
            scores, rows = search.best(queries, whole, 10, unit=True)
        found[rescore] = search.facts["recall@10"]
        if rescore:
            inner = np.einsum("qd,qkd->qk", queries, vectors_of(whole)[rows])
            assert scores == pytest.approx(inner, abs=1e-6) and (np.diff(scores, axis=1) <= 0).all()
    assert found[0] <= found[2] <= found[60] == 1.0
    assert found[0] >= 0.95 and found[2] == 1.0 if form == {"quantize": "int8"} else found[2] < 1.0
    assert (rows == exact).all() and scores == pytest.approx(exact_scores, abs=1e-6)  # all passages were candidates
    assert "the best 600 of 600 scored again" in caplog.text and "bytes a passage in place of 40" in caplog.text


def test_equal_scores_at_the_cut_fall_by_rank_after_scoring_again(whole: list[Path]):
    query = vectors_of(whole)[:1]
    for ranks in (np.arange(600), -np.arange(600)):
        _, rows = rescoring.rescored(query, Rows(whole), np.array([[300, 5, 0]]), 1, lambda: ranks)  # noqa: B023
        assert rows.tolist() == [[0]] if ranks[0] < ranks[300] else [[300]]
    _, rows = rescoring.rescored(query, Rows(whole), np.array([[300, -1, 0]]), 3)
    assert rows.tolist() == [[0, 300, -1]]


def test_small_vectors_are_made_once_and_anew_of_other_vectors(whole: list[Path], queries: np.ndarray):
    search = ExactSearch(quantize="int8", rescore=0)
    before = search.best(queries, whole, 5)[1]
    made = whole[0].parent / f"int8-{DIM}" / whole[1].name
    stamp = made.stat().st_mtime_ns
    assert (search.best(queries, whole, 5)[1] == before).all() and made.stat().st_mtime_ns == stamp
    for lost in sorted(made.parent.iterdir()):  # ranges.npy among them
        lost.unlink()
        assert (search.best(queries, whole, 5)[1] == before).all(), lost.name
    np.save(whole[1], -np.load(whole[1]))
    write_json(whole[0].parent / "manifest.json", {"weights": "other"})
    assert (search.best(queries, whole, 5)[1] != before).any() and made.stat().st_mtime_ns != stamp


def test_two_jobs_make_one_set_of_small_vectors(
    whole: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    looked: list[int] = []

    def slow(*given: Any) -> np.ndarray:
        looked.append(1)
        for _ in range(600):
            if "Waiting for another process, which is making smaller vectors in" in caplog.text:
                break
            time.sleep(0.1)
        return evenly(*given)

    monkeypatch.setattr(small_vectors, "evenly", slow)
    with ThreadPoolExecutor(2) as jobs:  # each opens the lock's file for itself, as two processes do
        for made in jobs.map(lambda _: small_vectors.SmallVectors(whole, DIM, "int8", True), range(2)):
            assert all(path.is_file() for path in made.shards)
    assert looked == [1]


def test_an_index_is_made_of_the_first_numbers(whole: list[Path], queries: np.ndarray):
    rows = FaissSearch(dimensions=SHORT, rescore=0).best(queries, whole, 10, unit=True)[1]
    assert (rows == ExactSearch(dimensions=SHORT, rescore=0).best(queries, whole, 10, unit=True)[1]).mean() > 0.95
    with pytest.raises(UserError, match="search.factory=SQ8"):
        FaissSearch(quantize="int8")


def test_faults_are_told_in_a_line(whole: list[Path], queries: np.ndarray):
    with pytest.raises(UserError, match="search.quantize='int4' is not known; allowed: null, int8, binary"):
        ExactSearch(quantize="int4")
    with pytest.raises(UserError, match="search.rescore=-1"):
        ExactSearch(rescore=-1)
    with pytest.raises(UserError, match="search.dimensions=21: vectors have 20 numbers; give 1 to 20"):
        ExactSearch(dimensions=21).check(600, DIM)
    whole[1].write_bytes(whole[1].read_bytes()[:-10])
    for search in (ExactSearch(), ExactSearch(quantize="binary"), FaissSearch()):
        with pytest.raises(UserError, match="shard-1.npy: no whole file of vectors .*; remove it, and it is made again"):
            search.best(queries, whole, 5)


@pytest.mark.parametrize("loss", [contrastive, kl])
def test_the_loss_is_the_mean_over_shortened_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: Callable[..., torch.Tensor]
):
    retriever = BiEncoder(tiny_bert(tmp_path / "model"), normalize=True)
    queries, passages = (torch.nn.functional.normalize(torch.randn(n, 32), dim=1) for n in (2, 3))
    listed = torch.tensor([[0], [1]])
    judged, utility = torch.tensor([[0, 2], [1, 2]]), torch.tensor([[1.0, 0.0], [2.0, 1.0]])
    batch = Batch(["a", "b"], [], [], torch.arange(3), listed, listed, listed, judged, utility, torch.ones(2))
    monkeypatch.setattr(BiEncoder, "forward", lambda self, texts, role, cached: queries if role == "query" else passages)
    module = RetrieverModule(retriever, loss, partial(torch.optim.SGD, lr=1.0), 0.1, "llm")
    each = []
    for dimensions in (32, 8):
        short = [torch.nn.functional.normalize(vectors[:, :dimensions], dim=1) for vectors in (queries, passages)]
        each.append(module._loss_of(batch, Scored(short[0] @ short[1].T, torch.arange(3)))[0])
    retriever.dimensions = [32, 8]
    found = retriever.batch_scores(Texts([], [], batch.rows, listed >= 0), lambda vectors, rows, most: (vectors, rows))
    together, weights = module._loss_of(batch, found)
    assert (
        together.item() == pytest.approx(sum(each).item() / 2, rel=1e-5) and weights.tolist() == [1, 1] and each[0] != each[1]
    )


def test_dimensions_that_vectors_lack_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    retriever = BiEncoder(tiny_bert(tmp_path / "model"))
    for wrong in ([64], [8, 8], [], [0], "8", 8):
        with pytest.raises(UserError, match="training.dimensions=.*from 1 to 32 are needed"):
            check_dimensions(OmegaConf.create({"of": wrong}).of, retriever)
    check_dimensions(OmegaConf.create([32, 8]), retriever)
    assert not caplog.text
    check_dimensions(OmegaConf.create([16, 8]), retriever)
    assert "whole vectors, of 32 numbers, are not learnt from; search with search.dimensions=16" in caplog.text


def test_an_exported_model_names_its_dimensions_and_is_cut_alike_elsewhere(tmp_path: Path):
    retriever = BiEncoder(tiny_bert(tmp_path / "model"), normalize=True)
    retriever.dimensions = [32, 8]
    retriever.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())["matryoshka_dims"] == [32, 8]
    mini = open_collection("mini:test")
    theirs = SentenceTransformer(str(tmp_path / "out"), truncate_dim=8, device="cpu")
    given = theirs.encode([mini.corpus.text(row) for row in range(5)], normalize_embeddings=True)
    vectors = encode_many(retriever, retriever.passage_tokens(mini), np.arange(5), "fp32").astype(np.float32)
    assert given == pytest.approx(small_vectors.shortened(vectors, 8, unit=True), abs=2e-3)  # of fp16


def test_a_run_learns_and_searches_small_vectors(
    command: Callable[..., subprocess.CompletedProcess[str]], tiny: list[str], tmp_path: Path
):
    options = ["training.dimensions=[32,8]", "search.dimensions=8", "search.quantize=binary", "retrieval_depth=100"]
    places = ["hydra.run.dir=run", "logger=none", "rag=off", "baselines=[]", "training.epochs=1"]
    done = command("train", *tiny, *SMALL, *options, *places)
    assert "binary, 8 of 32 numbers, 1 bytes a passage in place of 64; the best 400 of 584 scored again" in ok(done)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["search"]["mini.test"]["bytes_per_passage"] == 1
    assert "first 32, 8 numbers" in (tmp_path / "run" / "model" / "README.md").read_text()
