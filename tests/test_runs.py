import json
import random
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import ir_measures
import numpy as np
import pytest
from conftest import metrics, ok
from pytrec_eval import RelevanceEvaluator

from uar.errors import DataError, UserError
from uar.storage.ordering import Hit, best_first
from uar.storage.runs import read_run, write_run


def order(run: dict[str, list[Hit]]) -> dict[str, list[str]]:
    return {q: [d for d, _ in hits] for q, hits in run.items()}


def tied(seed: int, queries: int = 40) -> dict[str, list[Hit]]:
    """Twelve passages a query under three scores."""
    rng = random.Random(seed)
    return {
        f"q{q}": best_first((f"d{d}", rng.choice([1.0, 0.5, -1e30])) for d in rng.sample(range(99), 12))
        for q in range(queries)
    }


SCORES = {
    "ties": [1.0, 1.0, 1.0, 0.5],
    "ties at zero": [0.0, 0.0, -0.0, 0.0],
    "around zero": [1e-45, 1e-45, 1e-45, 0.0, -1e-45, -1e-45],
    "below zero": [-1.5, -1.5, -1.5, -1.6],
    "apart in double precision alone": [1 + 3e-16, 1 + 2e-16, 1.0],
    "wider than single precision": [1e300, 1e300, 1e299, -1e300, -1e300],
    "far apart": [1e9, 1.0, 1e-9, -3.0],
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_written_scores_fall_strictly_in_single_precision(tmp_path: Path, scores: list[float]):
    run = {"q": [(f"d{at}", score) for at, score in enumerate(scores)]}
    write_run(tmp_path / "x.trec", run, "tag")
    lines = [line.split() for line in (tmp_path / "x.trec").read_text().splitlines()]
    assert [(cells[0], cells[1], cells[3], cells[5]) for cells in lines] == [
        ("q", "Q0", str(rank), "tag") for rank in range(1, len(scores) + 1)
    ]
    written = np.array([float(cells[4]) for cells in lines], dtype=np.float32)
    assert np.isfinite(written).all() and (np.diff(written.astype(np.float64)) < 0).all()
    assert order(read_run(tmp_path / "x.trec")) == order(run)


def test_scores_that_do_not_tie_are_written_as_they_are(tmp_path: Path):
    run = {"q": [("d9", 12.25), ("d8", 0.1), ("d7", -3.0)]}
    write_run(tmp_path / "x.trec", run, "tag")
    read = [score for _, score in read_run(tmp_path / "x.trec")["q"]]
    assert read == [12.25, float(f"{np.float32(0.1):.9g}"), -3.0]


@pytest.mark.parametrize("seed", range(3))
def test_other_tools_read_a_run_with_ties_in_its_order(tmp_path: Path, seed: int):
    """trec_eval and pytrec_eval order ties by passage id, the last first."""
    run = tied(seed)
    write_run(tmp_path / "x.trec", run, "tag")
    rng = random.Random(seed)
    qrels = {q: {d: rng.randrange(3) for d, _ in hits} for q, hits in run.items()}
    read = list(ir_measures.read_trec_run(str(tmp_path / "x.trec")))
    measures = [ir_measures.parse_measure(m) for m in ("nDCG@3", "P@1", "AP", "RR")]
    told = {(v.query_id, str(v.measure)): v.value for v in ir_measures.iter_calc(measures, qrels, read)}
    apart = {q: {d: float(-at) for at, (d, _) in enumerate(hits)} for q, hits in run.items()}
    theirs = RelevanceEvaluator(qrels, {"ndcg_cut_3", "P_1", "map", "recip_rank"}).evaluate(apart)
    names = {"nDCG@3": "ndcg_cut_3", "P@1": "P_1", "AP": "map", "RR": "recip_rank"}
    assert told == {(q, m): pytest.approx(theirs[q][name], abs=1e-9) for q in run for m, name in names.items()}


def test_a_run_without_results_writes_and_reads_as_empty(tmp_path: Path):
    write_run(tmp_path / "x.trec", {"q1": []}, "tag")
    assert read_run(tmp_path / "x.trec") == {}


@pytest.mark.parametrize(("query_id", "doc_id"), [("q 1", "d1"), ("q1", "d\t1"), ("q1", "")])
def test_an_id_that_would_break_the_columns_is_refused(tmp_path: Path, query_id: str, doc_id: str):
    with pytest.raises(UserError, match="has white space or nothing in it"):
        write_run(tmp_path / "x.trec", {query_id: [(doc_id, 1.0)]}, "tag")
    assert not (tmp_path / "x.trec").exists()


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path):
    with pytest.raises(UserError, match="x.trec: a score of query 'q2' is no number"):
        write_run(tmp_path / "x.trec", {"q1": [("d", 1.0)], "q2": [("d", 1.0), ("e", float("nan"))]}, "tag")
    assert not list(tmp_path.iterdir())


def test_ties_and_lines_in_any_order_are_read_by_score_then_id(tmp_path: Path):
    (tmp_path / "x.trec").write_text("q1 Q0 c 1 1 x\n\nq2 Q0 a 1 3e0 x\nq1\tQ0  a 2 1.0 x\r\nq1 Q0 b 9 2 x\n")
    assert read_run(tmp_path / "x.trec") == {"q1": [("b", 2.0), ("a", 1.0), ("c", 1.0)], "q2": [("a", 3.0)]}


def test_a_candidates_file_is_a_run_in_its_order(tmp_path: Path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"query_id": "q1", "candidates": ["d9", "d1"]}\n')
    assert read_run(path) == {"q1": [("d9", 2.0), ("d1", 1.0)]}


GOOD = "q1 Q0 d1 1 3.0 x\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q1 Q0 d1 1 nan x\n", "x.trec:1: score 'nan'; a finite number is needed"),
        (GOOD + "q1 Q0 d2 1 -inf x\n", "x.trec:2: score '-inf'"),
        (GOOD + "q1 Q0 d2 1 high x\n", "x.trec:2: score 'high'"),
        (GOOD + "q1 Q0 d2 1 2.0 x y\n", "x.trec:2: 7 columns; a TREC run has six"),
        (GOOD + "q1 Q0 d2 1 2.0\n", "x.trec:2: 5 columns"),
        (GOOD + "\nq1 Q0 d1 2 1.0 x\n", "x.trec:3: passage 'd1' of query 'q1' stands at line 1 too"),
    ],
)
def test_a_broken_run_is_refused_with_its_line(tmp_path: Path, text: str, told: str):
    (tmp_path / "x.trec").write_text(text)
    with pytest.raises(DataError, match=told):
        read_run(tmp_path / "x.trec")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"query_id": "q1"}\n', ":1: 'candidates' is None"),
        (
            '{"query_id": "q1", "candidates": ["a"]}\n{"query_id": "q1", "candidates": []}\n',
            ":2: query 'q1' stands at line 1 too",
        ),
    ],
)
def test_broken_candidates_are_refused_with_their_line(tmp_path: Path, text: str, told: str):
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(DataError, match=told):
        read_run(tmp_path / "c.jsonl")


def test_a_run_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(DataError, match="gone.trec: no such run"):
        read_run(tmp_path / "gone.trec")


def test_a_run_without_a_query_of_the_collection_is_refused(tmp_path: Path, fails: Callable[..., str]):
    (tmp_path / "x.trec").write_text(GOOD)
    told = fails("uar.evaluate", "run=x.trec", "collections=[mini:test]")
    assert "x.trec: no query of mini:test (56) is in this run" in told


def test_a_named_retriever_ranks_the_passages_of_a_run_anew(
    folder: Path, tmp_path: Path, command: Callable[..., CompletedProcess[str]], fails: Callable[..., str]
):
    shown = {q: [(d, float(-at)) for at, d in enumerate(("d4", "d5", "d1", "d2", "d3"))] for q in ("q1", "q2", "q3")}
    write_run(tmp_path / "x.trec", shown, "x")
    given = ["run=x.trec", f"collections=[local:{folder}:test]", "logger=none", "measures=[RR@2,R@5]", "hydra.run.dir=run"]
    ok(command("uar.evaluate", "retriever=minilm_l3", *given))
    assert metrics(tmp_path / "run")["retrieval"]["toy.test"] == {"RR@2": 1.0, "R@5": 1.0}
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["model"].endswith("-l3")
    ranked = order(read_run(tmp_path / "run" / "runs" / "toy.test.trec"))
    assert {q: hits[0] for q, hits in ranked.items()} == {"q1": "d1", "q2": "d2", "q3": "d3"}
    assert all(set(hits) == {"d1", "d2", "d3", "d4", "d5"} for hits in ranked.values())
    ok(command("uar.evaluate", "retriever=bm25", *given))
    assert metrics(tmp_path / "run")["retrieval"]["toy.test"] == {"RR@2": 1.0, "R@5": 1.0}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["ranker"] == "x.trec, re-ranked by bm25(k1=1.5, b=0.75)"
    assert "found model and retriever; give" in fails("uar.evaluate", "retriever=bm25", "model=m", *given[1:])
