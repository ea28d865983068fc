"""The annotate command as a user runs it."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from annotate_runs import KEY, QUIET, Command, asking, labels, lines, tokens, told
from conftest import SHARED
from llm_server import LLMServer, Messages, gold_answers, serve
from wandb_files import offline_run

from uar.annotation import annotate_run as run_module
from uar.annotation.annotators import Likelihood
from uar.collections import open_collection
from uar.errors import EngineError
from uar.launch.entry import composed
from uar.llm.costs.estimate import render
from uar.llm.costs.ledger import Prices
from uar.llm.engines.work import Work
from uar.llm.pooled import question_of
from uar.llm.store.store import Store
from uar.storage.label_files import SCHEMA


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
        fixed = ["annotator=utilsel", *asking(server), QUIET, "hydra.run.dir=run"]
        return command("annotate", *fixed, *arguments, OPENAI_API_KEY=KEY)

    return annotate


def content(folder: Path) -> str:
    """All that stands in a folder, Parquet unpacked."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert files
    packed = [str(pq.read_table(p).to_pylist()) for p in files if p.suffix == ".parquet"]
    return "\n".join(packed + [p.read_text(encoding="utf-8", errors="replace") for p in files])


def test_the_default_annotator_fills_the_run_folder_and_asks_once(tmp_path: Path, command: Command) -> None:
    arguments = ["limit=3", "candidates.depth=4", QUIET]
    done = command("annotate", *arguments, "hydra.run.dir=first")
    assert done.returncode == 0, done.stderr
    first = tmp_path / "first"
    mini = open_collection("mini:train")
    queries = list(mini.queries)[:3]

    assert pq.read_schema(first / "labels.parquet").equals(SCHEMA)
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
    assert ledger["outcomes"] == {"ok": 12} and ledger["seconds"] > 0
    likelihood = Likelihood(template="likelihood_question")
    rendered = render(likelihood, [question_of(mini, q, pools[q]) for q in queries])
    asked = [call.request for _, calls in rendered for call in calls]
    assert ledger["tokens_in"] == sum(tokens(request.prefix + request.target) for request in asked) > 12 * 30
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
    assert {p.name for p in (tmp_path / "annotations").iterdir() if p.suffix != ".parquet"} == {"pools"}


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


def test_a_tracked_run_tells_all_but_the_key(tmp_path: Path, utilsel: Command, server: LLMServer) -> None:
    gold = server.answer

    def generous(messages: Messages) -> str:
        numbers = [m["content"].partition(" ")[0] for m in messages if m["content"].startswith("[")]
        return f"My selection:[{','.join(numbers)}]" if "Reference answer:" in messages[-1]["content"] else gold(messages)

    server.answer = generous
    server.fault = lambda number, body: {1: "500", 3: "401"}.get(number)
    done = utilsel("limit=4", "candidates.depth=4", "llm.window=1", "logger=wandb", "logger.wandb.mode=offline")
    assert done.returncode == 0, done.stderr
    assert {headers["authorization"] for _, headers, _ in server.seen} == {f"Bearer {KEY}"}
    run = tmp_path / "run"
    (failure,) = lines(run / "failures.jsonl")
    assert (failure["stage"], failure["outcome"]) == ("utilsel", "error") and "wrong key" in failure["output"]
    assert "1 calls failed, 1 of 4 questions are without labels" in done.stdout + done.stderr
    assert (told(run)["failed_calls"], told(run)["queries_without_labels"]) == (1, 1)
    rows = labels(run)
    assert failure["query_id"] not in {r["query_id"] for r in rows} and len(rows) == 12

    kept = content(tmp_path)
    assert "wrong key" in kept and "OPENAI_API_KEY" in kept
    assert KEY not in kept + done.stdout + done.stderr
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [p for p in files if KEY.encode() in p.read_bytes()]

    offline = offline_run(run)
    ledger, agreement = told(run), told(run, "agreement")
    for name, value in {
        "ledger/calls": ledger["calls"],
        "ledger/stages/relsel/outcome_rates/ok": 1.0,
        "ledger/stages/utilsel/outcome_rates/error": 0.25,
        "ledger/human_cost": round(12 * 0.09, 6),
        "ledger/material/passages": ledger["material"]["passages"],
        "agreement/kappa": agreement["kappa"],
        "agreement/stages/relsel/recall": agreement["stages"]["relsel"]["recall"],
    }.items():
        assert offline.summary[name] == pytest.approx(value), name
    shown = offline.table("disagreements")
    mini = open_collection("mini:train")
    wrong = {(r["query_id"], r["doc_id"]) for r in rows if r["label"] != (mini.qrels[r["query_id"]].get(r["doc_id"], 0) >= 2)}
    judged = {(q, d) for q, d in wrong if d in mini.qrels[q]}
    assert {(row["query_id"], row["doc_id"]) for row in shown} == judged != set()
    assert {row["kind"] for row in shown} == {"false positive"}
    images = {p.name.split("_")[0] for p in (offline.folder / "files" / "media" / "images" / "agreement").glob("*.png")}
    assert images == {"positives", "confusion", "by"}


def test_a_run_that_fails_too_often_stops_and_goes_on_from_there(tmp_path: Path, utilsel: Command, server: LLMServer) -> None:
    gold = server.answer
    server.answer = lambda messages: "I think it is the first." if "My selection" in messages[-1]["content"] else ""
    wandb = ["logger=wandb", "logger.wandb.mode=offline"]
    done = utilsel("limit=100", "candidates.depth=2", "llm.window=8", *wandb)
    assert offline_run(tmp_path / "run").exit_code == 1
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


@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError, RuntimeError])
def test_what_was_judged_is_written_however_a_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LLMServer, error: type[BaseException]
) -> None:
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def ends(work: Work, prices: Prices) -> Iterator[Callable[[Work], None]]:
        def report(work: Work) -> None:
            if len(work.results) >= 5:
                raise error("the end")

        yield report

    monkeypatch.setattr(run_module, "progress_bar", ends)
    options = ["annotator=relsel", *asking(server), "llm.window=4", "limit=24", "candidates.depth=4", QUIET]
    with pytest.raises(error, match="the end"):
        run_module.annotate(composed("annotate", *options), tmp_path / "run")
    ledger = told(tmp_path / "run")
    assert ledger["queries"] == 5 and 5 <= ledger["calls"] < 24
    assert len({row["query_id"] for row in labels(tmp_path / "run")}) == 5


def test_a_model_that_cannot_be_loaded_is_the_only_thing_that_is_told(command: Command) -> None:
    done = command("annotate", "limit=2", "llm=transformers", "llm.model=owner/nope", "logger=none")
    assert done.returncode == 2 and "llm.model=owner/nope: cannot be loaded" in done.stderr
    assert "0 calls failed" not in done.stdout + done.stderr


def test_a_server_that_is_down_is_one_line(fails: Callable[..., str]) -> None:
    url = "http://127.0.0.1:9/v1"
    line = fails("annotate", "annotator=utilsel", "llm=openai", f"llm.base_urls=[{url}]", "llm.model=m",
                 "llm.retries=1", "llm.backoff=0.01", "limit=2", QUIET)  # fmt: skip
    assert url in line and "llm.base_urls" in line


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data here")
def test_labels_by_another_llm_agree_with_people_as_published(tmp_path: Path, command: Command) -> None:
    place = SHARED / "msmarco_dl20"
    file = place / "llm_labels" / "test.4prompts_file-llama70b.tsv"
    dataset = ["dataset=local", f"dataset.path={place}", "dataset.train=test", "dataset.positive_grade=2"]
    annotator = ["annotator=import", f"annotator.path={file}", "annotator.threshold=2"]
    done = command("annotate", *dataset, *annotator, QUIET, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    agreement, ledger = told(tmp_path / "run", "agreement"), told(tmp_path / "run")
    assert (round(agreement["kappa"], 3), agreement["judged_pairs"]) == (0.303, 11_386)
    low, high = agreement["intervals"]["kappa"]
    assert low < agreement["kappa"] < high
    assert (ledger["calls"], ledger["pairs"], ledger["model"]) == (0, 11_386, None)
    assert not (tmp_path / "annotations").exists()
