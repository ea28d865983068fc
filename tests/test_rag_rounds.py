"""Passages kept over rounds of verifying: a question whose answer takes two passages that no single query finds."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import metrics, write_jsonl
from llm_server import LLMServer
from scripted import Scripted, run

from uar.errors import UserError
from uar.evaluate import evaluate
from uar.evaluation.rag.passage_selection import Candidates, Selector
from uar.evaluation.rag.query_writing import Missing
from uar.launch.entry import composed
from uar.llm.record import Request

FIRST, SECOND = "The opera Alva was composed by Mira Holt.", "Mira Holt grew up in Norland."
PASSAGES = {
    "hop1": FIRST,
    "hop2": SECOND,
    "opera": "The opera Tern has a composer of its own.",
    "roses": "Mira Holt grew roses, and roses grew up with Mira Holt.",
    "fur": "Mira Holt grew up fast.",
    "sea": "The Danube flows into the Black Sea.",
}
MISSING = "In which country did Mira Holt grow up? Norland grew"


@pytest.fixture
def two_hops(tmp_path: Path) -> Path:
    place = tmp_path / "toy"
    (place / "qrels").mkdir(parents=True)
    write_jsonl(place / "corpus.jsonl", [{"_id": i, "title": "", "text": t} for i, t in PASSAGES.items()])
    write_jsonl(
        place / "queries.jsonl", [{"_id": "q1", "text": "the home of the composer of opera Alva", "answers": ["Norland"]}]
    )
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\thop1\t1\nq1\thop2\t1\n")
    return place


def task_of(text: str) -> str:
    return next((task for task, words in TASKS.items() if words in text), "read")


TASKS = {
    "select": "My selection:[[i]",
    "verify": "reply on one line with a better query",
    "enough": "one word, yes or no",
    "missing": "for what is missing alone",
    "passage": "states what is missing",
}


def llm(messages: list[dict[str, str]]) -> str:
    text = messages[-1]["content"]
    both = FIRST in text and SECOND in text
    match task_of(text):
        case "select":
            lines = [line for line in text.splitlines() if line.startswith("[")]
            return f"My selection:[{','.join(line[:3] for line in lines if FIRST in line or SECOND in line)}]"
        case "verify":
            return "supported" if both else f"search: {MISSING}"
        case "enough":
            return "Yes." if both else "No, it is not said where Mira Holt is from."
        case "missing":
            return MISSING if FIRST in text else "who composed Alva"
        case "passage":
            return "Mira Holt grew up\nin Norland."
    return "Norland" if both else "unknown"


def words(server: LLMServer, folder: Path, *more: str) -> list[str]:
    return [
        "retriever=bm25", f"collections=[local:{folder}:test]", "rag=default", "llm@rag.llm=openai", "rag.llm.model=scripted",
        f"rag.llm.base_urls=[{server.url}]", "rag.top_k=2", "rag.rounds=2", "logger=none", *more,
    ]  # fmt: skip


def answered(folder: Path) -> dict[str, Any]:
    (row,) = pq.read_table(folder / "generations" / "toy.test.parquet").to_pylist()
    return row


@pytest.mark.parametrize("query", ["better", "missing_question", "missing_passage"])
def test_passages_of_both_hops_are_kept(
    server: LLMServer, two_hops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
):
    monkeypatch.chdir(tmp_path)
    server.answer = llm
    given = words(server, two_hops, "rag.verify=llm", f"rag.query={query}")
    evaluate(composed("evaluate", *given), tmp_path / "replaced")
    assert len({"hop1", "hop2"} & set(answered(tmp_path / "replaced")["doc_ids"])) == 1
    assert metrics(tmp_path / "replaced")["rag"]["toy.test"]["EM"] == 0.0

    evaluate(composed("evaluate", *given, "rag.select=llm"), tmp_path / "kept")
    row = answered(tmp_path / "kept")
    assert set(row["doc_ids"]) == {"hop1", "hop2"} and row["answer"] == "Norland"
    assert row["search_query"] == ("Mira Holt grew up in Norland." if query == "missing_passage" else MISSING)
    assert metrics(tmp_path / "kept")["rag"]["toy.test"]["EM"] == 1.0
    assert [line.split()[2] for line in (tmp_path / "kept/runs/toy.test.rag.trec").read_text().splitlines()] == row["doc_ids"]
    seen = len(server.seen)
    tasks = [task_of(body["messages"][-1]["content"]) for _, _, body in server.seen]
    assert tasks.count("select") == 2 and ("verify" in tasks) == (query == "better")
    evaluate(composed("evaluate", *given, "rag.select=llm"), tmp_path / "again")
    assert len(server.seen) == seen and answered(tmp_path / "again") == row


def selector(**options: Any) -> Selector:
    return Selector(template="rag_select", **options)


def shown(request: Request) -> list[str]:
    return [line.split("] ")[1] for line in request.messages[-1][1].splitlines() if line.startswith("[")]


POOL = {f"d{n}": f"passage {n}" for n in range(1, 24)}


def test_a_sweep_shows_each_candidate_once_beside_those_that_are_kept(tmp_path: Path):
    engine = Scripted(lambda request: "My selection:[[2],[1]]")
    kept = {"k1": "old 1", "k2": "old 2"}
    question = Candidates("q1", "what", {**kept, **POOL}, kept=("k1", "k2"))
    found, chains = run(tmp_path, selector(keep=3, window=8), engine, [question])
    windows = [shown(request) for request in engine.asked]
    assert windows[0] == ["old 1", "old 2", *(f"passage {n}" for n in range(1, 7))]
    assert windows[1][:2] == ["old 2", "old 1"] and len(windows[1]) == 8
    new = [text for window in windows for text in window if text.startswith("passage")]
    assert new == list(POOL.values()) and [len(window) for window in windows] == [8, 8, 8, 7]
    assert found == {"q1": ["k1", "k2"]} and chains.progress.stages["rag_select"].outcomes == {"ok": 4}


def test_a_selection_that_cannot_be_read_or_is_empty_leaves_what_was_kept(tmp_path: Path):
    replies = iter(["My selection:[[1],[2],[3],[4]]", "the second one", "My selection:[]", "My selection:[[77]]", ""])
    found, chains = run(tmp_path, selector(keep=2, window=7), Scripted(lambda request: next(replies)),
                        [Candidates("q1", "what", POOL)], max_failure_rate=1.0)  # fmt: skip
    assert found == {"q1": ["d1", "d2"]}, "of a longer selection the first count"
    counts = chains.progress.stages["rag_select"]
    assert counts.outcomes == {"ok": 2, "unparsable": 1, "out_of_range": 1, "empty": 1} and counts.notes["longer"] == 1


def test_where_nothing_is_selected_the_best_of_the_ranking_are_shown(
    server: LLMServer, two_hops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.chdir(tmp_path)
    server.answer = lambda messages: "I cannot say."
    caplog.set_level("INFO")
    evaluate(composed("evaluate", *words(server, two_hops, "rag.select=llm")), tmp_path / "run")
    assert answered(tmp_path / "run")["doc_ids"] == ["hop1", "opera"]
    assert "in 1 windows (1 replies could not be read" in caplog.text and "1 questions with none selected" in caplog.text
    assert metrics(tmp_path / "run")["rag"]["toy.test"]["select_failed"] == 1


def test_a_selector_that_always_fails_ends_the_run(server: LLMServer, two_hops: Path, tmp_path: Path) -> None:
    (question,) = [json.loads(line) for line in (two_hops / "queries.jsonl").read_text().splitlines()]
    write_jsonl(two_hops / "queries.jsonl", [question | {"_id": f"q{n}", "text": f"{n} opera Alva"} for n in range(1, 61)])
    (two_hops / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\thop1\t1\n" for n in range(1, 61))
    )
    server.answer = lambda messages: "prose"
    given = words(server, two_hops, "rag.select=llm", f"store={tmp_path / 'store'}")
    with pytest.raises(UserError, match="calls failed .* more than max_failure_rate=0.05; the last: rag_select unparsable"):
        evaluate(composed("evaluate", *given), tmp_path / "run")
    assert evaluate(composed("evaluate", *given, "rag.max_failure_rate=1"), tmp_path / "run") is not None
    assert metrics(tmp_path / "run")["rag"]["toy.test"]["select_failed"] == 60


@pytest.mark.parametrize(
    ("enough", "missing", "made"),
    [("no", "who was it", "who was it"), ("Yes", "", ""), ("no", "", ""), ("perhaps", "who", ""), ("yes and no", "who", "")],
)
def test_what_is_missing_is_asked_for_where_passages_are_not_enough(tmp_path: Path, enough: str, missing: str, made: str):
    engine = Scripted(lambda r: enough if task_of(r.messages[-1][1]) == "enough" else missing)
    found, _ = run(tmp_path, Missing(template="rag_missing_question"), engine, [Candidates("q1", "what", {"d1": "a"})], 1.0)
    assert found == {"q1": made} and len(engine.asked) == (2 if enough == "no" else 1)


def test_options_that_do_not_go_together():
    with pytest.raises(UserError, match=r"rag\.window=5: more than rag\.keep=5 is needed"):
        selector(keep=5, window=5)
