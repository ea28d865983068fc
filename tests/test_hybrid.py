"""The hybrid command as a user runs it, with imported labels and with a scripted server."""

import json
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, metrics, ok, write_jsonl
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from llm_server import LLMServer, gold_answers, serve
from omegaconf import DictConfig
from scripted import BEES, kept, replies, run
from scripted import Scripted as Engine
from written_runs import write_run as written_run

from uar.annotation.annotators import UtilRank, UtilSel
from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.hybrid_test import Joined, hybrid, join, judge_beside_gold
from uar.evaluation.measures import means, per_query
from uar.launch.entry import one_line, register_resolvers
from uar.llm.call import Question
from uar.reporting.hybrid_columns import with_hybrid
from uar.reporting.run_folders import find_runs
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.storage.label_files import write_label_file
from uar.storage.runs import read_run, write_run

Command = Callable[..., subprocess.CompletedProcess[str]]
UTILSEL = {"template": "utilsel"}
MEASURES = ["nDCG@2", "RR@2", "R@2", "AP"]


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """One run finds the human positives of q1 and q2, another one d4 for q1 and nothing of q3."""
    first = {"q1": ["d1", "d6", "d2"], "q2": ["d5", "d2", "d1"], "q3": ["d6", "d5", "d3"]}
    second = {"q1": ["d4", "d1"], "q2": ["d6", "d5"]}
    for name, ranking in (("first", first), ("second", second)):
        hits = {q: [(d, float(-at)) for at, d in enumerate(ids)] for q, ids in ranking.items()}
        write_run(tmp_path / f"{name}.trec", hits, name)
    return [f"{name}.trec" for name in ("first", "second")]


@pytest.fixture
def hybrid_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """The command in this process, its run folder NAME in an empty folder; returns what it returns."""
    monkeypatch.chdir(tmp_path)

    def start(name: str, *overrides: str) -> dict:
        return hybrid(composed("logger=none", "price.gpus=0", f"measures=[{','.join(MEASURES)}]", *overrides), Path(name))

    return start


def composed(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("hybrid", list(overrides))


def rows(folder: Path) -> list[tuple]:
    return [tuple(row.values()) for row in pq.read_table(folder / "hybrid.parquet").to_pylist()]


def test_people_stand_and_the_annotator_judges_what_they_did_not(toy: Collection) -> None:
    graded = replace(toy, qrels={"q1": {"d1": 3, "d2": 1, "d3": 0}, "q2": {"d2": 2}}, positive_grade=2)
    labels = {"q1": {"d1": 1, "d2": 1, "d3": 0, "d4": 1, "d5": 0}}
    assert list(join(graded, labels)) == [
        Joined("q1", "d1", 3, 3, 1, "human+llm"),
        Joined("q1", "d2", 1, 1, 1, "human"),
        Joined("q1", "d3", 0, 0, 0, "human+llm"),
        Joined("q1", "d4", 2, None, 1, "llm"),
        Joined("q1", "d5", 0, None, 0, "llm"),
    ]
    assert list(join(graded, {"q2": {"d1": 0}}))[0] == Joined("q2", "d2", 2, 2, None, "human")


def test_imported_labels_join_the_human_qrels_and_all_runs_are_measured_on_both(
    toy: Collection, runs: list[str], tmp_path: Path, command: Command
) -> None:
    judged = {"q1": {"d1": 1, "d4": 1, "d6": 0, "d3": 1}, "q2": {"d2": 0, "d5": 1, "d6": 0}}
    lines = [f"{q} 0 {d} {grade}\n" for q, labels in judged.items() for d, grade in labels.items()]
    (tmp_path / "labels.qrels").write_text("".join(lines))
    given = [f"collection={toy.reference}", f"runs=[{','.join(runs)}]", "depth=2"]
    imported = ["annotator=import", "annotator.path=labels.qrels", "logger=none", f"measures=[{','.join(MEASURES)}]"]
    told = ok(command("uar.hybrid", *given, *imported, "hydra.run.dir=run"))
    folder = tmp_path / "run"
    assert rows(folder) == [
        ("q1", "d1", 1, 1, 1, "human+llm"),
        ("q1", "d6", 0, None, 0, "llm"),
        ("q1", "d4", 1, None, 1, "llm"),  # d3 is labelled too, and in no run's first two
        ("q2", "d2", 1, 1, 0, "human"),
        ("q2", "d5", 1, None, 1, "llm"),
        ("q2", "d6", 0, None, 0, "llm"),
    ]
    assert (folder / "hybrid.qrels").read_text().splitlines() == [
        *("q1 0 d1 1", "q1 0 d6 0", "q1 0 d4 1", "q2 0 d2 1", "q2 0 d5 1", "q2 0 d6 0"),
    ]
    assert "6 of 8 pooled passages judged, in 2 of 3 queries" in told
    found = metrics(folder)
    assert list(found) == ["human", "hybrid"] and list(found["human"]) == ["first", "second"]
    qrels = {"q1": {"d1": 1, "d6": 0, "d4": 1}, "q2": {"d2": 1, "d5": 1, "d6": 0}}
    for name in ("first", "second"):
        ranked = read_run(tmp_path / f"{name}.trec")
        for judges, collection in (("human", toy), ("hybrid", replace(toy, qrels=qrels))):
            assert found[judges][name] == means(per_query(collection, ranked, MEASURES, ["q1", "q2"]))
    assert found["human"]["second"]["RR@2"] == 0.25 and found["hybrid"]["second"]["RR@2"] == 0.75
    kept_scores = pq.read_table(folder / "scores.parquet").to_pylist()
    assert len(kept_scores) == 2 * 2 * 2 * len(MEASURES)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["runs"]) == ["first", "second"] and manifest["collection"] == toy.hash
    trained = written_run(tmp_path / "trained", {"toy.test": {"AP": 0.5}})
    (trained / "runs").mkdir()
    shutil.copy(tmp_path / "second.trec", trained / "runs" / "toy.test.trec")
    of_report = with_hybrid(find_runs([str(trained), str(folder)]).runs, notes := [])
    assert of_report[0].metrics["retrieval"] == {"toy.test": {"AP": 0.5}, "toy.test.hybrid": found["hybrid"]["second"]}
    assert not of_report[1].slugs and not notes
    other = shutil.copytree(folder, tmp_path / "other")
    judged_otherwise = {"hybrid": {name: {"AP": 0.125} for name in ("first", "second")}}
    (other / "metrics.json").write_text(json.dumps(judged_otherwise))
    both = with_hybrid(find_runs([str(trained), str(folder), str(other)]).runs, notes)[0].metrics["retrieval"]
    of_tests = {"toy.test.hybrid (run)": found["hybrid"]["second"], "toy.test.hybrid (other)": {"AP": 0.125}}
    assert both == {"toy.test": {"AP": 0.5}, **of_tests} and not notes
    (folder / "manifest.json").write_text("{")
    assert with_hybrid(of_report, notes) == of_report
    assert len(notes) == 1 and notes[0].startswith("run: metrics.json or manifest.json: cannot be read")


def test_a_collection_that_nobody_judged_is_measured_on_hybrid_alone(
    folder: Path, runs: list[str], tmp_path: Path, hybrid_in: Callable[..., dict], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "candidates").mkdir()
    write_jsonl(folder / "candidates" / "new.jsonl", [{"query_id": q, "candidates": ["d1"]} for q in ("q1", "q2")])
    (tmp_path / "labels.tsv").write_text("q1\td4\t1\nq2\td5\t0\n")
    given = [f"collection=local:{folder}:new", "runs={one: first.trec, two: second.trec}", "depth=1"]
    with caplog.at_level(logging.INFO):
        found = hybrid_in("run", *given, "annotator=import", "annotator.path=labels.tsv")
    assert "the runs are measured on hybrid alone" in caplog.text
    assert (
        metrics(tmp_path / "run")
        == found
        == {"hybrid": {"one": dict.fromkeys(MEASURES, 0), "two": dict.fromkeys(MEASURES, 1)}}
    )


def test_the_questions_of_most_doubt_by_a_file_are_those_that_are_measured(
    toy: Collection, runs: list[str], tmp_path: Path, hybrid_in: Callable[..., dict]
) -> None:
    second = {"q1": 0.1, "q2": 0.5, "q3": 0.2}  # the scores after a first one of 0.9
    doubt = [row for q, score in second.items() for row in ((q, "d1", 1, 0.9), (q, "d2", 0, score))]
    write_label_file(tmp_path / "doubt.parquet", ("query_id", "doc_id", "label", "score"), doubt)
    (tmp_path / "labels.tsv").write_text("q1\td4\t1\nq2\td5\t1\n")
    given = [f"collection={toy.reference}", f"runs=[{','.join(runs)}]", "depth=2", "limit=1"]
    hybrid_in("run", *given, "acquire=uncertainty", "against=doubt.parquet", "annotator=import", "annotator.path=labels.tsv")
    assert {row[0] for row in rows(tmp_path / "run")} == {"q2"}


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """A server that knows the judgements of mini's test split."""
    with serve() as running:
        running.answer = gold_answers(open_collection("mini:test"))
        yield running


def asking(server: LLMServer) -> list[str]:
    return ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=gold", "llm.backoff=0.01"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_llm_judges_the_pool_beside_the_gold_answer_and_is_asked_once(
    tmp_path: Path, hybrid_in: Callable[..., dict], server: LLMServer
) -> None:
    mini = open_collection("mini:test")
    queries = list(mini.queries)
    bm25 = BM25Ranker().rank(mini, queries, 20)
    write_run(tmp_path / "bm25.trec", bm25, "bm25")
    write_run(tmp_path / "turned.trec", {q: [(d, -s) for d, s in reversed(hits)] for q, hits in bm25.items()}, "turned")
    given = [
        "collection=mini:test",
        "runs=[bm25.trec,turned.trec]",
        "depth=3",
        "annotator=utilsel",
        "limit=8",
        *asking(server),
    ]

    hybrid_in("dry", *given, "dry_run=true")
    assert server.seen == []
    assert json.loads((tmp_path / "dry" / "estimate.json").read_text())["calls"] == 16
    answers = {q: "; ".join(mini.queries[q].answers) for q in queries}
    asked = [row for row in lines(tmp_path / "dry" / "prompts.jsonl") if row["stage"] == "utilsel"]
    assert len(asked) == 8 and all(answers[row["query_id"]] in row["messages"][-1]["content"] for row in asked)
    assert not (tmp_path / "dry" / "metrics.json").exists()

    hybrid_in("run", *given)
    folder = tmp_path / "run"
    ledger = json.loads((folder / "ledger.json").read_text())
    assert ledger["queries"] == 8 and set(ledger["stages"]) <= {"relsel", "utilsel"}
    assert ledger["calls"] == len(server.seen) <= 16
    pools = {row["query_id"]: set(row["candidates"]) for row in lines(folder / "candidates" / "mini.test.jsonl")}
    assert list(pools) == queries[:8]
    for query_id, pool in pools.items():
        ranked = [d for d, _ in bm25[query_id]]
        assert pool == {*ranked[:3], *ranked[-3:]}
    found = rows(folder)
    assert {(q, d) for q, d, *_, origin in found if origin == "human"} == {
        (q, d) for q in pools for d in mini.qrels[q] if d not in pools[q]
    }
    assert {d for q, d, *_, label, origin in found if label} <= {d for q in pools for d in mini.positives(q)}
    scores = metrics(folder)
    assert scores["hybrid"] == scores["human"] and scores["human"]["bm25"]["RR@2"] > scores["human"]["turned"]["RR@2"]

    calls = len(server.seen)
    hybrid_in("again", *given)
    assert len(server.seen) == calls and metrics(tmp_path / "again") == scores
    hybrid_in("written", *given, "gold_answers=false")
    written = json.loads((tmp_path / "written" / "ledger.json").read_text())
    assert written["stages"]["pseudo_answer"]["calls"] > 0


def test_an_answer_is_written_only_where_there_is_no_gold_one(tmp_path: Path) -> None:
    engine = Engine(replies(relsel="My selection:[[1],[4]]", pseudo_answer="Honey.", utilsel="My selection:[[1]]"))
    gold = replace(BEES, answers=("honey", "wax"))
    judged, _ = run(tmp_path / "a", UtilSel(**UTILSEL, gold_answer=True), engine, [gold])
    assert engine.stages == ["relsel", "utilsel"] and "honey; wax" in engine.asked[-1].messages[-1][1]
    assert [(j.doc_id, j.label) for j in judged["q1"] if j.label] == [("d1", 1)]
    assert [record.stage for record in kept(tmp_path / "a", "relsel", "pseudo_answer", "utilsel")] == ["relsel", "utilsel"]
    engine = Engine(replies(relsel="My selection:[[1],[4]]", pseudo_answer="Honey.", utilrank="[2] > [1]"))
    ranked, _ = run(
        tmp_path / "b", UtilRank(template="utilrank", gold_answer=True), engine, [Question("q1", BEES.text, BEES.passages)]
    )
    assert engine.stages == ["relsel", "pseudo_answer", "utilrank"]
    assert [j.doc_id for j in ranked["q1"] if j.label] == ["d4"]


def test_annotators_that_know_a_gold_answer_judge_beside_it_and_others_stay() -> None:
    for choice in ("utilsel", "utilrank"):
        cfg = composed("collection=x", "runs=[a]", f"annotator={choice}")
        judge_beside_gold(cfg.annotator)
        assert cfg.annotator.gold_answer
        ensemble = composed("collection=x", "runs=[a]", "annotator=ensemble", f"annotator@annotator.member={choice}")
        judge_beside_gold(ensemble.annotator)
        assert ensemble.annotator.member.gold_answer
    cfg = composed("collection=x", "runs=[a]", "annotator=likelihood")
    judge_beside_gold(cfg.annotator)
    assert "gold_answer" not in cfg.annotator


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["runs=[gone.trec]"], "gone.trec: no such run"),
        (["runs=[]"], "runs names no run"),
        (["collection=msmarco"], "collection=msmarco stands for 3 collections; give one"),
        (["measures=[R@100]"], "runs.first gives at most 3 results a question; give a deeper run, or give measures that look"),
        (["measures=[goodness]"], "measure 'goodness' is not known"),
        (["depth=0"], "candidates.top=0"),
        (["annotator=import", "annotator.path=others.tsv"], "no passage of the pools has a label"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_asked(
    toy: Collection, runs: list[str], tmp_path: Path, hybrid_in: Callable[..., dict], overrides: list[str], told: str
) -> None:
    (tmp_path / "others.tsv").write_text("q1\td3\t1\n")
    given = {"collection": toy.reference, "runs": f"[{','.join(runs)}]", "depth": "2"}
    given |= dict(override.split("=", 1) for override in overrides)
    with pytest.raises((UserError, HydraException)) as error:
        hybrid_in("run", *(f"{name}={value}" for name, value in given.items()))
    assert told in (one_line(error.value) or "")
