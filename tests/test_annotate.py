"""The annotate command as a user runs it."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from llm_server import LLMServer, gold_answers, serve
from scipy.stats import spearmanr

from uar.annotation.record import Record
from uar.annotation.store import Store
from uar.collections import open_collection
from uar.collections.reference import MINI

Command = Callable[..., subprocess.CompletedProcess[str]]
SHIPPED = MINI / "annotations"
KEY = "sk-planted-5208"


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """A server that knows the judgements of mini's train split."""
    with serve() as running:
        running.answer = gold_answers(open_collection("mini:train"))
        yield running


@pytest.fixture
def utilsel(command: Command, server: LLMServer) -> Command:
    """Annotate with UtilSel and the server into the folder `run`, with a key in the environment."""

    def annotate(*arguments: str) -> subprocess.CompletedProcess[str]:
        llm = ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=gold", "llm.backoff=0.01"]
        return command("annotate", "annotator=utilsel", *llm, "hydra.run.dir=run", *arguments, OPENAI_API_KEY=KEY)

    return annotate


def labels(folder: Path) -> list[dict]:
    return pq.read_table(folder / "labels.parquet").to_pylist()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def content(folder: Path) -> str:
    """All that stands in a folder, Parquet unpacked."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert files
    packed = [str(pq.read_table(p).to_pylist()) for p in files if p.suffix == ".parquet"]
    return "\n".join(packed + [p.read_text(encoding="utf-8", errors="replace") for p in files])


def test_the_default_annotator_fills_the_run_folder_and_asks_once(tmp_path: Path, command: Command) -> None:
    arguments = ["limit=3", "candidates.depth=4"]
    done = command("annotate", *arguments, "hydra.run.dir=first")
    assert done.returncode == 0, done.stderr
    first = tmp_path / "first"
    mini = open_collection("mini:train")
    queries = list(mini.queries)[:3]

    assert pq.read_schema(first / "labels.parquet").names == ["query_id", "doc_id", "label", "grade", "score", "rank", "uncertainty"]
    rows = labels(first)
    assert [r["query_id"] for r in rows] == [q for q in queries for _ in range(4)]
    assert [r["rank"] for r in rows] == [1, 2, 3, 4] * 3
    assert [r["label"] for r in rows] == [1, 0, 0, 0] * 3
    scores = [r["score"] for r in rows]
    assert all(scores[n : n + 4] == sorted(scores[n : n + 4], reverse=True) for n in (0, 4, 8))
    assert all(-20 < score < 0 for score in scores)
    assert [line.split() for line in (first / "labels.qrels").read_text().splitlines()] == [
        [r["query_id"], "0", r["doc_id"], str(r["label"])] for r in rows
    ]
    pools = {line["query_id"]: line["candidates"] for line in lines(first / "candidates" / "mini.train.jsonl")}
    assert list(pools) == queries
    assert all(set(pools[q]) == {r["doc_id"] for r in rows if r["query_id"] == q} for q in queries)
    assert all(set(mini.positives(q)) <= set(pools[q]) for q in queries)

    ledger = json.loads((first / "ledger.json").read_text())
    assert (ledger["queries"], ledger["calls"], ledger["calls_answered_by_store"]) == (3, 12, 0)
    assert ledger["tokens_in"] > 12 * 30 and ledger["outcomes"] == {"ok": 12} and ledger["seconds"] > 0
    assert (first / "failures.jsonl").read_text() == ""
    assert (first / "config.yaml").is_file()
    assert json.loads((first / "manifest.json").read_text())["collection"] == mini.hash

    chosen = {(r["query_id"], r["doc_id"]) for r in rows if r["label"]}
    gold = {(q, d) for q in queries for d in mini.positives(q)}
    agreement = json.loads((first / "agreement.json").read_text())
    assert agreement["precision"] == pytest.approx(len(chosen & gold) / len(chosen))
    assert agreement["recall"] == pytest.approx(len(chosen & gold) / len(gold))
    assert (agreement["queries"], agreement["average_positives"]) == (3, 1.0)

    done = command("annotate", *arguments, "hydra.run.dir=second")
    assert done.returncode == 0, done.stderr
    ledger = json.loads((tmp_path / "second" / "ledger.json").read_text())
    assert (ledger["calls"], ledger["calls_answered_by_store"]) == (0, 12)
    assert labels(tmp_path / "second") == rows
    assert all(p.suffix == ".parquet" for p in (tmp_path / "annotations").iterdir())


def test_utilsel_with_a_perfect_llm_gives_the_gold_labels(tmp_path: Path, utilsel: Command, server: LLMServer) -> None:
    done = utilsel("limit=12")
    assert done.returncode == 0, done.stderr
    mini = open_collection("mini:train")
    rows = labels(tmp_path / "run")
    assert {(r["query_id"], r["doc_id"]) for r in rows if r["label"]} == {
        (q, d) for q in list(mini.queries)[:12] for d in mini.positives(q)
    }
    assert [r["grade"] for r in rows] == [mini.qrels[r["query_id"]].get(r["doc_id"], 0) for r in rows]
    assert set(r["grade"] for r in rows) == {0, 1, 2}
    agreement = json.loads((tmp_path / "run" / "agreement.json").read_text())
    assert (agreement["precision"], agreement["recall"]) == (1.0, 1.0)
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert ledger["calls"] == len(server.seen) == 36
    assert (ledger["tokens_in"], ledger["tokens_cached"], ledger["tokens_out"]) == (7 * 36, 2 * 36, 3 * 36)


def test_the_key_is_sent_and_written_nowhere(tmp_path: Path, utilsel: Command, server: LLMServer) -> None:
    server.fault = lambda number, body: {1: "500", 3: "401"}.get(number)
    done = utilsel("limit=4", "candidates.depth=4")
    assert done.returncode == 0, done.stderr
    assert {headers["authorization"] for _, headers, _ in server.seen} == {f"Bearer {KEY}"}
    (failure,) = lines(tmp_path / "run" / "failures.jsonl")
    assert (failure["stage"], failure["outcome"]) == ("relsel", "error") and "wrong key" in failure["output"]
    assert failure["query_id"] not in {r["query_id"] for r in labels(tmp_path / "run")}
    kept = content(tmp_path)
    assert "wrong key" in kept and "OPENAI_API_KEY" in kept
    assert KEY not in kept + done.stdout + done.stderr


def test_a_run_that_fails_too_often_stops_and_goes_on_from_there(tmp_path: Path, utilsel: Command, server: LLMServer) -> None:
    gold = server.answer
    server.answer = lambda messages: "I think it is the first." if "My selection" in messages[-1]["content"] else ""
    done = utilsel("limit=100", "candidates.depth=2", "llm.window=8")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "max_failure_rate=0.05" in done.stderr
    asked = len(server.seen)
    assert 50 <= asked < 100
    failures = lines(tmp_path / "run" / "failures.jsonl")
    assert {f["outcome"] for f in failures} == {"unparsable"} and len(failures) >= 50
    server.answer = gold
    done = utilsel("limit=100", "candidates.depth=2", "llm.model=better")
    assert done.returncode == 0, done.stderr
    records = list(Store(tmp_path / "annotations").records("mini.train", ["relsel"], "gold"))
    assert {f["query_id"] for f in failures} == {r.query_id for r in records}


def test_a_server_that_is_down_is_one_line(fails: Callable[..., str]) -> None:
    url = "http://127.0.0.1:9/v1"
    line = fails("annotate", "annotator=utilsel", "llm=openai", f"llm.base_urls=[{url}]", "llm.model=m",
                 "llm.retries=1", "llm.backoff=0.01", "limit=2")  # fmt: skip
    assert url in line and "llm.base_urls" in line


def shipped() -> dict[tuple[str, str], Record]:
    """The records that come with mini, by query and passage."""
    models = {m for part in SHIPPED.glob("*.parquet") for m in pq.read_table(part)["model"].to_pylist()}
    assert len(models) == 1
    records = Store(SHIPPED).records("mini.train", ["likelihood_question"], models.pop())
    return {(r.query_id, r.doc_ids[0]): r for r in records}


def test_the_shipped_annotations_cover_every_question_of_train() -> None:
    mini = open_collection("mini:train")
    records = shipped()
    assert {q for q, _ in records} == set(mini.queries)
    assert {(q, d) for q in mini.queries for d in mini.positives(q)} <= set(records)
    assert {r.outcome for r in records.values()} == {"ok"}


def test_a_fresh_run_reproduces_the_shipped_annotations(tmp_path: Path, command: Command) -> None:
    done = command("annotate", "limit=6", "hydra.run.dir=fresh")
    assert done.returncode == 0, done.stderr
    rows = labels(tmp_path / "fresh")
    records = shipped()
    ours = [r["score"] for r in rows]
    theirs = [records[r["query_id"], r["doc_id"]].reply().mean_logprob() for r in rows]
    assert sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(rows) < 0.02
    assert spearmanr(ours, theirs).statistic > 0.99
    first = {r["query_id"]: r["doc_id"] for r in rows if r["rank"] == 1}
    for query_id, best in first.items():
        pool = [r["doc_id"] for r in rows if r["query_id"] == query_id]
        assert best == max(pool, key=lambda d: records[query_id, d].reply().mean_logprob())
    fresh = next(iter(Store(tmp_path / "annotations").records("mini.train", ["likelihood_question"], _model(records))))
    assert fresh.template_hash == records[fresh.query_id, fresh.doc_ids[0]].template_hash


def _model(records: dict[tuple[str, str], Record]) -> str:
    return next(iter(records.values())).model
