import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import metrics, ok
from omegaconf import OmegaConf

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.evaluator import Evaluator
from uar.evaluation.retrieving import Retrieving
from uar.reranking import ByRanker, Reranked
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.fusion.methods import fuse, of_each
from uar.retrievers.run_file import RunFile
from uar.storage.ordering import Hit
from uar.storage.runs import read_run, run_files, write_run

Command = Callable[..., subprocess.CompletedProcess[str]]
A = {"q1": [("d1", 9.0), ("d2", 8.0), ("d3", 5.0)], "q2": [("d1", 1.0)]}
B = {"q1": [("d3", 0.5), ("d1", 0.25)], "q3": [("d9", 2.0), ("d8", 2.0)]}


def ids(hits: list[Hit]) -> list[str]:
    return [d for d, _ in hits]


def test_reciprocal_ranks_add_up_over_runs():
    found = fuse([A, B])
    assert list(found) == ["q1", "q2", "q3"]
    assert found["q1"] == [
        ("d1", pytest.approx(1 / 61 + 1 / 62)),
        ("d3", pytest.approx(1 / 63 + 1 / 61)),
        ("d2", pytest.approx(1 / 62)),
    ]
    assert found["q2"] == [("d1", 1 / 61)]
    assert fuse([A, B], k=0, depth=1)["q1"] == [("d1", 1.5)]
    assert ids(fuse([A, B], weights=[0, 1])["q1"]) == ["d3", "d1", "d2"]


def test_scores_are_set_between_0_and_1_before_they_are_weighted():
    found = fuse([A, B], "weighted", [2, 1])
    assert found["q1"] == [("d1", 2.0), ("d2", pytest.approx(2 * 0.75)), ("d3", 1.0)]
    assert found["q2"] == [("d1", 2.0)]  # where all scores of a query are equal, they are the highest
    assert found["q3"] == [("d8", 1.0), ("d9", 1.0)]


def test_neither_the_order_of_runs_nor_their_sum_decides_ties():
    runs = [{"q": [("a", 3.0), ("b", 2.0), ("c", 1.0)]}, {"q": [("b", 3.0), ("c", 2.0), ("a", 1.0)]}]
    runs.append({"q": [("c", 3.0), ("a", 2.0), ("b", 1.0)]})
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        for method in ("rrf", "weighted"):
            found = fuse([runs[at] for at in order], method)["q"]
            assert ids(found) == ["a", "b", "c"] and len({score for _, score in found}) == 1


def test_runs_without_queries_or_results_fuse():
    assert fuse([]) == {} and fuse([{}, {}]) == {}
    assert fuse([{"q": []}, {"q": [("d", 1.0)]}], "weighted") == {"q": [("d", 1.0)]}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "sum"}, "'sum' is not known; allowed: rrf, weighted"),
        ({"k": -1}, "k=-1, depth=None"),
        ({"depth": 0}, "k=60, depth=0"),
        ({"weights": [1]}, "of 2 runs"),
        ({"weights": [1, -1]}, "from 0 on"),
        ({"weights": [0, 0.0]}, "all passages would have the same score; give one above 0"),
        ({"weights": [1, float("nan")]}, "from 0 on"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, told: str):
    with pytest.raises(UserError, match=told):
        fuse([A, B], **options)


def test_the_constant_of_reciprocal_ranks_is_refused_where_scores_are_added():
    given = {"a": BM25Ranker(), "b": BM25Ranker(k1=2.0)}
    assert Fusion(None, given, "rrf", k=5).name == "rrf(a, b)"
    with pytest.raises(UserError, match="retriever.k=5 is of retriever.method=rrf; set this too, or leave k 60"):
        Fusion(None, given, "weighted", k=5)


def test_numbers_for_names_come_from_one_a_list_or_a_mapping():
    names = ["a", "b"]
    assert of_each(None, names, "x", 1) == [1, 1]
    assert of_each(5, names, "x", 1) == [5, 5]
    assert of_each([2, 3], names, "x", 1) == [2, 3]
    assert of_each({"b": 4}, names, "x", 1) == [1, 4]
    with pytest.raises(UserError, match="x has 'c', which is none of a, b"):
        of_each({"c": 4}, names, "x", 1)
    with pytest.raises(UserError, match="x has 1 values for a, b"):
        of_each([4], names, "x", 1)


def test_files_are_named_by_stems_or_where_those_are_the_same_by_paths():
    assert run_files(["x/a.trec", "y/b.trec"], "runs") == {"a": Path("x/a.trec"), "b": Path("y/b.trec")}
    assert list(run_files(["x/a.trec", "y/a.trec"], "runs")) == ["x/a.trec", "y/a.trec"]
    assert run_files("a.trec", "runs") == {"a": Path("a.trec")}
    assert run_files({"mine": "a.trec"}, "runs") == {"mine": Path("a.trec")}
    with pytest.raises(UserError, match="runs names a.trec more than once"):
        run_files(["a.trec", "a.trec"], "runs")
    with pytest.raises(UserError, match="candidates.runs names no run"):
        run_files(None, "candidates.runs")


@pytest.fixture
def collection(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def test_files_and_retrievers_become_one_ranking(collection: Collection, tmp_path: Path):
    write_run(tmp_path / "a.trec", {"q1": [("d5", 2.0), ("d1", 1.0)], "other": [("d1", 1.0)]}, "a")
    bm25 = BM25Ranker()
    fusion = Fusion({"a": str(tmp_path / "a.trec")}, {"bm25": bm25}, weights={"bm25": 3})
    found = fusion.rank(collection, ["q1", "q2"], 10)
    assert list(found) == ["q1", "q2"]
    assert found["q1"] == fuse([read_run(tmp_path / "a.trec"), bm25.rank(collection, ["q1"], 10)], weights=[1, 3])["q1"]
    assert ids(found["q1"]) == ["d1", "d5"]
    assert fusion.name == "rrf(a, bm25)"
    own = replace(collection, drop_own=True)
    write_run(tmp_path / "b.trec", {"q1": [("q1", 2.0), ("d1", 1.0)]}, "b")
    both = Fusion([str(tmp_path / "a.trec"), str(tmp_path / "b.trec")])
    assert both.rank(own, ["q1"], 10)["q1"] == [("d1", pytest.approx(1 / 62 + 1 / 61)), ("d5", 1 / 61)]


def test_a_fusion_of_run_files_opens_no_search(collection: Collection, tmp_path: Path):
    right = {q: [(d, 1.0) for d in collection.positives(q)] for q in collection.queries}
    for name in ("a", "b"):
        write_run(tmp_path / f"{name}.trec", right, name)
    settings = {
        "measures": ["RR@1"],
        "rag": {"llm": None},
        "search": {"_target_": "no.such.Search"},
        "store": "none",
        "retrieval_depth": 9,
    }
    fusion = Fusion([str(tmp_path / "a.trec"), str(tmp_path / "b.trec")])
    found = Evaluator(OmegaConf.create(settings), tmp_path / "run").evaluate([collection], fusion)
    assert found[collection.slug] == {"RR@1": 1.0}


def test_how_deep_files_were_fused_is_told_and_a_file_itself_is_read_whole(collection: Collection, tmp_path: Path):
    files = [str(tmp_path / f"{name}.trec") for name in ("a", "b")]
    for path in files:
        write_run(Path(path), {"q1": [("d5", 2.0), ("d1", 1.0)]}, "a")
    fusion, file, how = Fusion(files), RunFile(files[0]), Retrieving(None, 1)
    reordered = [Reranked(ranker, ByRanker(BM25Ranker(), 1)) for ranker in (fusion, file)]
    for ranker, told, found in ((fusion, {"retrieval_depth": 1}, 1), (file, {}, 2)):
        assert how.measured(ranker) == told and len(how.run(collection, ranker, ["q1"])["q1"]) == found
    assert [how.measured(ranker) for ranker in reordered] == [{"retrieval_depth": 1}, {}]
    keys = [[Retrieving(None, depth).key(collection, ranker) for depth in (1, 2)] for ranker in (fusion, file)]
    assert keys[0][0] != keys[0][1] and keys[1][0] == keys[1][1]


def test_a_fusion_of_less_than_two_or_of_another_collection_is_refused(collection: Collection, tmp_path: Path):
    write_run(tmp_path / "a.trec", {"other": [("d1", 1.0)]}, "a")
    file = str(tmp_path / "a.trec")
    with pytest.raises(UserError, match="fusion of a: at least two names"):
        Fusion([file])
    with pytest.raises(UserError, match="fusion of a, a: at least two names that differ"):
        Fusion([file], {"a": BM25Ranker()})
    with pytest.raises(UserError, match="a.trec: no query of local:"):
        Fusion([file], {"bm25": BM25Ranker()}).rank(collection, ["q1"], 10)


def test_the_evaluate_command_scores_a_fusion_of_run_files_and_of_retrievers(tmp_path: Path, command: Command):
    mini = open_collection("mini:test")
    queries = list(mini.queries)
    right = {q: [(d, 1.0) for d in mini.positives(q)] for q in queries}
    write_run(tmp_path / "right.trec", right, "right")
    write_run(tmp_path / "bm25.trec", BM25Ranker().rank(mini, queries, 20), "bm25")
    given = ["retriever=fusion", "collections=[mini:test]", "measures=[nDCG@10,R@20]"]
    files = "retriever.runs={right: right.trec, bm25: bm25.trec}"
    ok(command("uar.evaluate", *given, files, "retriever.weights={bm25: 0.001}", "hydra.run.dir=files"))
    assert metrics(tmp_path / "files")["retrieval"]["mini.test"]["nDCG@10"] > 0.99
    fused = read_run(tmp_path / "files" / "runs" / "mini.test.trec")
    both = [read_run(tmp_path / f"{name}.trec") for name in ("right", "bm25")]
    assert {q: ids(hits) for q, hits in fused.items()} == {q: ids(h) for q, h in fuse(both, weights=[1, 0.001]).items()}
    nested = ["retriever.runs=[right.trec]", "+retriever@retriever.retrievers.bm25=bm25", "retriever.method=weighted"]
    ok(command("uar.evaluate", *given, *nested, "hydra.run.dir=nested"))
    scores = pq.read_table(tmp_path / "nested" / "scores" / "mini.test.parquet").to_pylist()
    assert all(row["value"] == 1 for row in scores if row["measure"] == "R@20")
