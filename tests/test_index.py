"""Approximate search, and its recall against the exact one."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from uar.errors import UserError
from uar.retrievers import exact_search
from uar.retrievers.vector_index import ExactSearch, FaissSearch, recall
from uar.retrievers.vector_shards import evenly
from uar.storage.files import write_json

FACTORIES = ["Flat", "IVF{lists},Flat", "IVF16,PQ8x4", "HNSW16"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """1,500 vectors around 30 centres, in three files."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30, 16)).repeat(50, axis=0) + 0.3 * rng.standard_normal((1500, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = [tmp_path_factory.mktemp("shards") / f"{number}.npy" for number in range(3)]
    for place, part in zip(places, np.split(vectors.astype(np.float16), [400, 900]), strict=True):
        np.save(place, part)
    write_json(places[0].parent / "manifest.json", {"weights": "first"})
    return places


def copied(shards: list[Path], folder: Path) -> list[Path]:
    """Without an index, and with times of their own."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(shards[0].parent / "manifest.json", folder / "manifest.json")
    return [Path(shutil.copyfile(shard, folder / shard.name)) for shard in shards]


@pytest.fixture
def queries(shards: list[Path]) -> np.ndarray:
    return np.load(shards[1])[::25].astype(np.float32)


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_index_finds_most_of_what_exact_search_finds(
    shards: list[Path], queries: np.ndarray, caplog: pytest.LogCaptureFixture, factory: str
):
    _, exact = ExactSearch().best(queries, shards, 20)
    with caplog.at_level(logging.INFO):
        scores, rows = FaissSearch(factory=factory, probes=8).best(queries, shards, 20)
    found = recall(rows, exact)
    assert found > (0.999 if factory == "Flat" else 0.5 if "PQ" in factory else 0.9)
    assert f"recall@20 of {factory} against exact search: {found:.4f}" in caplog.text
    assert (np.diff(scores, axis=1) <= 1e-6).all()


def test_a_narrow_search_finds_less(shards: list[Path], queries: np.ndarray):
    _, exact = ExactSearch().best(queries, shards, 100)
    found = [recall(FaissSearch(factory="IVF64,Flat", probes=p).best(queries, shards, 100)[1], exact) for p in (1, 4, 64)]
    assert found[0] < found[1] < found[2] and found[2] > 0.999


@pytest.mark.parametrize("factory", ["HNSW4", "HNSW4,RFlat", "L2norm,HNSW4"])
def test_a_broad_search_of_a_graph_finds_more_whatever_the_graph_stands_in(
    shards: list[Path], queries: np.ndarray, factory: str
):
    _, exact = ExactSearch().best(queries, shards, 10)
    found = [recall(FaissSearch(factory=factory, ef_search=b).best(queries, shards, 10)[1], exact) for b in (1, 1_000)]
    assert found[0] < 0.9 < 0.99 < found[1]


@pytest.mark.parametrize(
    ("option", "least"), [("ef_search", 1), ("probes", 1), ("train_on", 1), ("rescore", 0), ("recall_queries", 0)]
)
def test_a_breadth_with_which_less_is_found_than_is_asked_for_is_refused(option: str, least: int):
    FaissSearch(**{option: least})
    with pytest.raises(UserError, match=rf"search.{option}={least - 1}: a whole number from {least} on is needed"):
        FaissSearch(**{option: least - 1})


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_index_is_made_once_for_the_vectors_and_kept_beside_them(
    shards: list[Path], queries: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, factory: str
):
    made = []
    monkeypatch.setattr(FaissSearch, "_index", lambda *given, real=FaissSearch._index: (made.append(1), real(*given))[1])
    own = copied(shards, tmp_path / "own")
    searches = [FaissSearch(factory=factory, train_on=1_500) for _ in range(2)]  # as two commands
    first, again, other = (search.best(queries[:4], own, 5)[1] for search in (searches[0], *searches))
    assert len(made) == 1 and (first == again).all() and (first == other).all()
    narrow = FaissSearch(factory=factory, train_on=1_500, probes=1, ef_search=1)  # a setting of the search, not of the index
    narrow.best(queries[:4], own, 5)
    assert len(made) == 1
    moved = copied(own, tmp_path / "moved")  # to another machine, with the index
    for index in own[0].parent.glob("*.faiss"):
        shutil.copyfile(index, moved[0].parent / index.name)
    assert (FaissSearch(factory=factory, train_on=1_500).best(queries[:4], moved, 5)[1] == first).all() and len(made) == 1
    write_json(own[0].parent / "manifest.json", {"weights": "other"})
    FaissSearch(factory=factory, train_on=1_500).best(queries[:4], own, 5)
    FaissSearch(factory=factory, train_on=1_400).best(queries[:4], own, 5)
    assert len(made) == 3


def test_an_index_of_which_a_part_is_gone_is_told(shards: list[Path], queries: np.ndarray, tmp_path: Path):
    own = copied(shards, tmp_path)
    FaissSearch().best(queries[:4], own, 5)
    (path,) = tmp_path.glob("*.faiss")
    path.write_bytes(path.read_bytes()[:1_000])
    with pytest.raises(UserError, match=rf"{path.name}: no whole index .*; remove it, and it is made again"):
        FaissSearch().best(queries[:4], own, 5)


def test_an_index_with_lists_is_trained_on_enough_for_them():
    assert [FaissSearch(factory=f)._training(FaissSearch(factory=f)._empty(1_000, 16)) for f in ("Flat", "IVF2048,Flat")] == [
        65_536,
        64 * 2_048,
    ]
    assert FaissSearch(train_on=100)._training(FaissSearch()._empty(1_000, 16)) == 100


@pytest.mark.parametrize(("most", "kept"), [(1500, 1500), (1499, 750), (1000, 750), (100, 100), (1, 1)])
def test_training_vectors_are_spread_evenly_and_never_more_than_allowed(shards: list[Path], most: int, kept: int):
    every = np.concatenate([np.load(shard) for shard in shards]).astype(np.float32)
    found = evenly(shards, most)
    assert len(found) == kept and (found == every[:: 1500 // kept]).all()


def test_recall_is_the_share_of_the_exact_results():
    assert recall(np.array([[1, 2, 9], [4, 5, 6]]), np.array([[1, 2, 3], [6, 5, 4]])) == pytest.approx(5 / 6)
    assert recall(np.array([[1, -1]]), np.array([[1, -1]])) == 1


def test_an_index_that_cannot_be_made_is_told(shards: list[Path], queries: np.ndarray):
    with pytest.raises(UserError, match="search.factory=Nothing: faiss cannot make it for 16 dimensions"):
        FaissSearch(factory="Nothing").best(queries, shards, 5)
    for odd in (0, "all"):
        with pytest.raises(UserError, match=f"processes={odd}: auto, or a whole number"):
            ExactSearch(processes=odd)
    with pytest.raises(UserError, match="search.precision='half' is not known; allowed: auto, bf16, fp32, fp16"):
        ExactSearch(precision="half")


def test_blocks_for_a_gpu_are_the_vectors_as_they_lie_in_the_files(shards: list[Path]):
    blocks = [(start, block.clone()) for start, block in exact_search._blocks(shards, 100, 400, torch.float16)]
    assert [start for start, _ in blocks] == [0, 100, 300, 700, 1_100]
    joined = torch.cat([block for _, block in blocks])
    assert joined.dtype == torch.float16 and (joined.numpy() == np.concatenate([np.load(s) for s in shards])).all()
