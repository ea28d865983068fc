"""Queries that the LLM writes before retrieval, and again where the passages do not support an answer."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import metrics, ok, write_jsonl
from hydra.utils import instantiate
from llm_server import LLMServer
from scripted import Scripted

from uar.collections import open_collection
from uar.evaluation.rag.query_writing import check_verdict, rewritten
from uar.evaluation.rag.reader import Asking
from uar.expansion.query_texts import QueryWriter, with_texts, written_query
from uar.launch.entry import composed
from uar.llm.models import LLM
from uar.llm.record import Outcome, Record, Reply
from uar.llm.store.store import Store

Command = Callable[..., subprocess.CompletedProcess[str]]
VAGUE = {"q1": "which organ moves red fluid", "q2": "what do bees make", "q3": "where does that long river end"}
GOLD = {"q1": "heart", "q2": "honey", "q3": "Black Sea"}
BETTER = {"q1": "heart pumps blood", "q2": "", "q3": "Danube flows"}


@pytest.fixture
def vague(folder: Path) -> Path:
    """The toy collection with questions of which BM25 finds the passage of q2 alone."""
    rows = [{"_id": q, "text": text, "answers": [GOLD[q]]} for q, text in VAGUE.items()]
    write_jsonl(folder / "queries.jsonl", rows)
    return folder


def asked(messages: list[dict[str, str]]) -> tuple[str, str]:
    """(task, query id) of a prompt."""
    text = messages[-1]["content"]
    task = "verify" if "search: QUERY" in text else "rewrite" if "one query that finds" in text else "read"
    return task, next(q for q, question in VAGUE.items() if f"Question: {question}" in text)


def llm(messages: list[dict[str, str]]) -> str:
    task, query_id = asked(messages)
    found = GOLD[query_id].lower() in messages[-1]["content"].lower()
    if task == "rewrite":
        return f'Query: "{BETTER[query_id]}"' if BETTER[query_id] else ""
    if task == "verify":
        return "Supported." if found else f"search: {BETTER[query_id]}"
    return GOLD[query_id] if found else "unknown"


def options(server: LLMServer, folder: Path, *more: str) -> list[str]:
    return [
        f"collections=[local:{folder}:test]", "rag=default", "llm@rag.llm=openai", "rag.llm.model=scripted",
        f"rag.llm.base_urls=[{server.url}]", "rag.top_k=1", *more,
    ]  # fmt: skip


def tasks(server: LLMServer) -> list[str]:
    return sorted(asked(body["messages"])[0] for _, _, body in server.seen)


def generations(folder: Path) -> dict[str, dict]:
    rows = pq.read_table(folder / "generations" / "toy.test.parquet").to_pylist()
    return {row["query_id"]: row for row in rows}


def test_rewritten_queries_serve_rag_alone_and_are_kept(command: Command, server: LLMServer, vague: Path, tmp_path: Path):
    server.answer = llm
    given = options(server, vague, "retriever=bm25", "rag.rewrite=llm")
    told = ok(command("uar.evaluate", *given, "hydra.run.dir=run"))
    assert "2 of 3 queries are searched as the LLM rewrote them (1 replies could not be used)" in told
    assert metrics(tmp_path / "run")["retrieval"]["toy.test"]["nDCG@10"] == pytest.approx(1 / 3)
    assert metrics(tmp_path / "run")["rag"]["toy.test"] == {
        "EM": 1.0, "F1": 1.0, "questions": 3, "empty": 0, "failed": 0, "rewrite_failed": 1,
    }  # fmt: skip
    found = generations(tmp_path / "run")
    assert {q: (row["search_query"], row["doc_ids"], row["question"]) for q, row in found.items()} == {
        "q1": ("heart pumps blood", ["d1"], VAGUE["q1"]),
        "q2": ("what do bees make", ["d2"], VAGUE["q2"]),  # the LLM wrote none
        "q3": ("Danube flows", ["d3"], VAGUE["q3"]),
    }
    assert (tmp_path / "run" / "runs" / "toy.test.rag.trec").read_text().splitlines()[0].startswith("q1 Q0 d1 1 ")
    assert tasks(server) == ["read"] * 3 + ["rewrite"] * 3
    told = ok(command("uar.evaluate", *given, "hydra.run.dir=again"))
    assert len(server.seen) == 6 and "RAG asked 0 calls and took 6 from the store" in told
    assert generations(tmp_path / "again") == found


def test_passages_that_do_not_support_an_answer_are_retrieved_again(
    command: Command, server: LLMServer, vague: Path, tmp_path: Path
):
    server.answer = llm
    told = ok(command("uar.evaluate", *options(server, vague, "retriever=bm25", "rag.verify=llm", "rag.rounds=3"), "name=run"))
    assert "round 1: the passages of 2 of 3 questions are said not to support an answer and retrieved again" in told
    assert "round 2: the passages of 0 of 2 questions" in told and "round 3" not in told
    assert metrics(tmp_path / "outputs" / "run")["rag"]["toy.test"]["EM"] == 1.0
    assert metrics(tmp_path / "outputs" / "run")["retrieval"]["toy.test"]["nDCG@10"] == pytest.approx(1 / 3)
    found = generations(tmp_path / "outputs" / "run")
    assert {q: row["search_query"] for q, row in found.items()} == {**VAGUE, "q1": BETTER["q1"], "q3": BETTER["q3"]}
    assert tasks(server) == ["read"] * 3 + ["verify"] * 5


def test_a_dense_retriever_searches_what_the_llm_writes(command: Command, server: LLMServer, vague: Path, tmp_path: Path):
    server.answer = llm
    server.fault = lambda number, body: "prose" if asked(body["messages"])[0] == "verify" else None
    given = ["retriever=minilm_l3", "rag.rewrite=llm", "rag.verify=llm", "rag.limit=1", "rag.seed=6"]
    told = ok(command("uar.evaluate", *options(server, vague, *given), "hydra.run.dir=run"))
    assert "1 of 1 queries are searched as the LLM rewrote them" in told
    assert "round 1: the passages of 0 of 1 questions" in told and "(1 replies could not be read)" in told
    assert metrics(tmp_path / "run")["rag"]["toy.test"]["verify_failed"] == 1
    assert generations(tmp_path / "run")["q1"]["doc_ids"] == ["d1"]
    assert tasks(server) == ["read", "rewrite", "verify"]


@pytest.mark.parametrize(
    ("text", "query", "verdict"),
    [
        ("Supported", "Supported", Outcome.OK),
        ("yes, they do", "yes, they do", Outcome.OK),
        ('search: "danube  mouth"\nmore', "danube mouth", Outcome.OK),
        ("Search: ", "", Outcome.UNPARSABLE),
        ("I cannot tell", "I cannot tell", Outcome.UNPARSABLE),
        ("", "", Outcome.EMPTY),
        ("“”", "", Outcome.UNPARSABLE),
    ],
)
def test_replies_are_read_or_named(text: str, query: str, verdict: Outcome):
    assert written_query(text) == query
    assert check_verdict(Reply(text)) == verdict
    assert QueryWriter(template="rag_rewrite", first_line=True).check(Reply(text)) == (Outcome.OK if query else Outcome.EMPTY)
    assert check_verdict(Reply("search: half a", Outcome.TRUNCATED)) == Outcome.TRUNCATED


def test_replies_that_earlier_versions_kept_answer_a_rewriting(folder: Path, tmp_path: Path):
    """By the key and the stage under which the class of that time kept this one."""
    asked = with_texts(open_collection(f"local:{folder}:test"), {"q1": "what pumps <b>blood</b>?"})
    store = Store(tmp_path / "store")
    kept = Record(
        key="1e2d3ec025c62a24eb54c2eeba01d132", collection="toy.test", query_id="q1", doc_ids=(), stage="rag_rewrite",
        template="rag_rewrite", template_hash="8018ebff60872d0dbc146bbdf4ed674d", layout="paper", model="model",
        engine="openai", output="Query: heart", outcome="ok",
    )  # fmt: skip
    store.append(kept)
    store.close()
    rewriter = instantiate(composed("evaluate", "rag=default", "rag.rewrite=llm").rag.rewriter)
    assert type(rewriter) is QueryWriter  # which expand=rewrite has too
    ask = Asking(asked, LLM("model", Scripted(lambda request: "asked anew")), Store(tmp_path / "store"))
    assert rewritten(ask, rewriter, {"q1": asked.queries["q1"].text}) == {"q1": "heart"}
    assert (ask.progress.total.asked, ask.progress.total.kept, ask.failed(["rag_rewrite"])) == (0, 1, 0)


def test_a_run_file_cannot_be_searched_again(fails: Callable[..., str], folder: Path, tmp_path: Path):
    write_jsonl(tmp_path / "run.jsonl", [{"query_id": "q1", "candidates": ["d1"]}])
    told = fails(
        "uar.evaluate",
        "run=run.jsonl",
        f"collections=[local:{folder}:test]",
        "rag=default",
        "rag.rewrite=llm",
        "measures=[RR@1]",
    )
    assert "rag.rewrite and rag.verify search with other queries, which a run file has no passages of" in told
