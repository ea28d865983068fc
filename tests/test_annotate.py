"""The annotate command as a user runs it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SHARED, SMOLLM2
from llm_server import LLMServer, Messages, gold_answers, serve
from scipy.stats import spearmanr
from tokenizers import Tokenizer
from wandb_files import offline_run

from uar.annotation import annotate_run as run_module
from uar.annotation.annotators import Likelihood, Pointwise, UtilSel
from uar.annotation.pooled import question_of
from uar.collections import Collection, open_collection
from uar.collections.reference import MINI
from uar.errors import EngineError
from uar.launch.entry import composed
from uar.llm.call import Question
from uar.llm.costs import gpus as gpus_module
from uar.llm.costs.estimate import estimate, render
from uar.llm.costs.gpus import with_gpus
from uar.llm.costs.ledger import Prices, ledger
from uar.llm.engines.work import Work
from uar.llm.progress import Counts, Progress
from uar.llm.record import Record
from uar.llm.store.store import Store
from uar.machine.model_files import locate
from uar.pools import GivenPool
from uar.storage.label_files import SCHEMA

Command = Callable[..., subprocess.CompletedProcess[str]]
SHIPPED = MINI / "annotations"
KEY = "sk-planted-5208"
QUIET = "logger=none"  # W&B takes twice as long as all the rest


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


def asking(server: LLMServer) -> list[str]:
    return ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=gold", "llm.backoff=0.01"]


def labels(folder: Path) -> list[dict]:
    return pq.read_table(folder / "labels.parquet").to_pylist()


def told(folder: Path, name: str = "ledger") -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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


def test_a_server_that_is_down_is_one_line(fails: Callable[..., str]) -> None:
    url = "http://127.0.0.1:9/v1"
    line = fails("annotate", "annotator=utilsel", "llm=openai", f"llm.base_urls=[{url}]", "llm.model=m",
                 "llm.retries=1", "llm.backoff=0.01", "limit=2", QUIET)  # fmt: skip
    assert url in line and "llm.base_urls" in line


CALLS = {"relsel": 24, "utilsel": 48, "utilrank": 20, "pointwise": 160, "qa_metric": 96}  # that no annotator before made
FITTED_ON, BESIDES = 20, 16  # queries of the calibration of pointwise; those of them that are not among the 24
KEPT = {"utilsel": 24, "utilrank": 44}  # selections and answers of those before; four pools have one relevant passage
STAGES = {
    "relsel": {"relsel"},
    "utilsel": {"relsel", "pseudo_answer", "utilsel"},
    "utilrank": {"relsel", "pseudo_answer", "utilrank"},
    "pointwise": {"pointwise"},
    "qa_metric": {"passage_answer"},
}
COUNTS = ("calls", "calls_answered_by_store", "tokens_in", "tokens_cached", "tokens_out")
POOLS = ["limit=24", "candidates.depth=4"]
PRICES = ["price.input=2000", "price.cached=1000", "price.output=4000", "price.gpus=0"]


@dataclass(frozen=True)
class Annotated:
    """Runs of all annotators in one store, each in the folder of its name; `server` still answers."""

    folder: Path
    server: LLMServer

    def run(self, *arguments: str, flags: Sequence[str] = ()) -> None:
        environment = {**os.environ, "OPENAI_API_KEY": KEY}
        fixed = [*asking(self.server), QUIET, *POOLS, *PRICES]
        command = [sys.executable, str(ROOT / "annotate.py"), *flags, *fixed, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def sweep(self, *arguments: str, into: str) -> None:
        self.run(*arguments, "hydra.sweep.dir=.", f"hydra.sweep.subdir={into}", flags=["-m"])


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Annotated]:
    mini = open_collection("mini:train")
    questions = {query.text: query for query in mini.queries.values()}
    ids = {letters(text): id_ for id_, text in zip(mini.corpus.ids(), mini.corpus.texts(), strict=True)}
    lists = gold_answers(mini)

    def single(messages: Messages) -> tuple[str, int]:
        """The gold answer, and the grade of the one passage shown."""
        shown = dict(line.split(": ", 1) for line in messages[-1]["content"].splitlines() if ": " in line)
        query = questions[shown["Question"]]
        return query.answers[0], mini.qrels[query.id].get(ids[letters(shown["Passage"])], 0)

    def answer(messages: Messages) -> str:
        if "\nPassage: " not in messages[-1]["content"]:
            return lists(messages)
        gold, grade = single(messages)
        return gold if grade == 2 else "unknown"

    def choose(messages: Messages) -> dict[str, float]:
        return dict.fromkeys("0123", -3.0) | {"013"[single(messages)[1]]: -0.2}

    with serve() as server:
        server.answer, server.choose = answer, choose
        found = Annotated(tmp_path_factory.mktemp("annotated"), server)
        found.sweep(f"annotator={','.join(CALLS)}", into="${hydra.runtime.choices.annotator}")
        assert len(server.seen) == sum(CALLS.values())
        yield found


def letters(text: str) -> str:
    return re.sub(r"\W+", "", text)


@pytest.mark.parametrize("name", CALLS)
def test_every_annotator_finds_what_people_found(annotated: Annotated, name: str) -> None:
    mini, run = open_collection("mini:train"), annotated.folder / name
    rows = labels(run)
    people = [mini.qrels[r["query_id"]].get(r["doc_id"], 0) for r in rows]
    assert len(rows) == 96 and people.count(2) == 24
    assert [r["label"] for r in rows] == [int(g >= (1 if name == "relsel" else 2)) for g in people]
    grades = {"relsel": [0, 1, 1], "pointwise": [0, 1, 3], "qa_metric": [0, 0, 1]}.get(name, [0, 1, 2])
    assert [r["grade"] for r in rows] == [grades[g] for g in people]
    known = [g if name.startswith("util") else r["label"] for g, r in zip(people, rows, strict=True)]
    assert all(known[n : n + 4] == sorted(known[n : n + 4], reverse=True) for n in range(0, 96, 4))
    agreement = told(run, "agreement")
    relevant = 24 / sum(g >= 1 for g in people)
    assert agreement["recall"] == 1.0 and agreement["precision"] == pytest.approx(relevant if name == "relsel" else 1.0)
    stages = {stage: found["precision"] for stage, found in agreement.get("stages", {}).items()}
    assert stages == ({"relsel": pytest.approx(relevant), name: 1.0} if name.startswith("util") else {})
    assert ("calibration" in agreement) == (name == "pointwise")
    figures = {p.stem for p in run.glob("*.png")}
    assert figures == {"positives", "by_rank", "confusion"} | ({"reliability"} if name == "pointwise" else set())


def test_probabilities_are_calibrated_on_queries_that_no_figure_counts(annotated: Annotated) -> None:
    agreement, mini = told(annotated.folder / "pointwise", "agreement"), open_collection("mini:train")
    calibration = agreement["calibration"]
    fitted_on = set(calibration["queries"])
    assert (len(fitted_on), calibration["queries_fitted_on"], len(fitted_on - set(mini.head(24)))) == (20, 20, BESIDES)
    shown = {r["query_id"] for r in labels(annotated.folder / "pointwise")}
    assert shown == set(mini.head(24)) and agreement["queries"] == len(shown - fitted_on) == 24 - (FITTED_ON - BESIDES)
    assert calibration["pairs"] == agreement["judged_pairs"]
    assert told(annotated.folder / "pointwise")["queries_for_calibration_alone"] == BESIDES
    assert calibration["temperature"] < 1 and calibration["after"]["brier"] < calibration["before"]["brier"]
    rows = labels(annotated.folder / "pointwise")
    assert {(r["label"], r["score"] > 0.95, r["score"] < 0.05) for r in rows} == {(1, True, False), (0, False, True)}
    assert all(0 <= r["uncertainty"] < 0.3 for r in rows)


@pytest.mark.parametrize("name", CALLS)
def test_the_ledger_adds_up_by_stage_and_by_price(annotated: Annotated, name: str) -> None:
    ledger = told(annotated.folder / name)
    calls, kept = CALLS[name], KEPT.get(name, 0)
    assert [ledger[count] for count in COUNTS] == [calls, kept, 7 * calls, 2 * calls, 3 * calls]
    assert ledger["kept_calls"] == {"tokens_in": 7 * kept, "tokens_out": 3 * kept, "tokens_cached": 2 * kept}
    assert ledger["outcomes"] == {"ok": calls + kept}
    stages = ledger["stages"]
    assert set(stages) == STAGES[name]
    for count in COUNTS:
        assert sum(stage[count] for stage in stages.values()) == ledger[count]
    assert {stage["outcome_rates"]["ok"] for stage in stages.values()} == {1.0}
    call = (5 * 2000 + 2 * 1000 + 3 * 4000) / 1e6
    assert ledger["cost"] == pytest.approx(calls * call) == pytest.approx(sum(stage["cost"] for stage in stages.values()))
    each = ledger["per_1000_queries"]
    assert each["calls"] == pytest.approx((calls + kept) / 24 * 1000, abs=0.1)
    assert each["cost"] == pytest.approx((calls + kept) * call / 24 * 1000)
    assert each["tokens_in"] == pytest.approx(7 * each["calls"], abs=1)
    assert (ledger["pairs"], ledger["human_cost"]) == (96, pytest.approx(96 * 0.09))
    assert (ledger["model"], ledger["currency"], ledger["gpu_hours"]) == ("gold", "USD", 0.0)


def test_gpu_time_is_paid_by_the_hour_and_shared_by_the_stages() -> None:
    progress = Progress()
    for stage, asked, seconds in (("relsel", 4, 30.0), ("utilsel", 2, 10.0)):
        counts = Counts(asked=asked, kept=1, seconds=seconds)
        counts.outcomes.update({"ok": asked, "empty": 1})
        progress.stages[stage] = counts
    spent = ledger(progress, 5, 20, 1_800.0, ["m"], Prices(gpu_hour=0.8, gpus=8))
    assert (spent["gpu_hours"], spent["cost"], spent["human_cost"]) == (4.0, 3.2, None)
    assert {name: stage["cost"] for name, stage in spent["stages"].items()} == {"relsel": 2.4, "utilsel": 0.8}
    assert spent["stages"]["relsel"]["outcome_rates"] == {"ok": 0.8, "empty": 0.2}
    each = spent["per_1000_queries"]  # two of eight calls were kept, which would have taken a third more time
    assert (each["calls"], each["seconds"], each["gpu_hours"]) == (1_600, 480_000, pytest.approx(1_066.66667))
    assert each["cost"] == pytest.approx(853.333333)
    kept = Progress(stages={"relsel": Counts(kept=5)})
    assert ledger(kept, 5, 20, 0.1, ["m"], Prices(gpu_hour=0.8, gpus=8))["per_1000_queries"]["cost"] is None
    assert ledger(kept, 0, 0, 0.1, [], Prices(gpus=0))["cost"] is None


def test_gpu_hours_without_gpus_have_no_cost() -> None:
    tokens = {"tokens_in": 10, "tokens_cached": 0, "tokens_out": 0}
    for gpus in (None, 0):
        assert Prices(gpu_hour=0.8, gpus=gpus).cost(tokens, 3_600.0) is None
        assert Prices(gpu_hour=0.8, input=1.0, gpus=gpus).cost(tokens, 3_600.0) is None
        assert Prices(input=1e6, gpus=gpus).cost(tokens, 3_600.0) == 10
    assert Prices().gpu_hours(3_600.0) is None and Prices(gpus=3).gpu_hours(7_200.0) == 6


@pytest.mark.parametrize(
    ("llms", "engine", "seen", "gpus"),
    [
        (["openai.OpenAI"], {}, True, None),
        (["transformers.Transformers"], {}, True, 1),
        (["transformers.Transformers"], {}, False, 0),
        (["vllm.VLLM"], {}, True, 4),
        (["vllm.VLLM", "transformers.Transformers"], {}, True, 4),
        (["vllm.VLLM", "openai.OpenAI"], {}, True, None),
        (["vllm.VLLM"], {"actors": 2, "num_gpus": 4}, False, 8),
        ([], {}, True, 0),
    ],
)
def test_the_gpus_of_a_run_are_those_that_its_engine_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, llms: list[str], engine: dict, seen: bool, gpus: float
) -> None:
    monkeypatch.setattr(gpus_module, "_seen", lambda: seen)
    configs = [{"_target_": f"uar.llm.models.{name}"} for name in llms]
    configs = [c | ({"tensor_parallel_size": 4} if "vllm" in c["_target_"] else {}) for c in configs]
    engine = {"_target_": "uar.llm.engines.ray.RayEngine" if engine else "uar.llm.engines.local.LocalEngine"} | engine
    assert with_gpus(Prices(gpu_hour=1.0), configs, engine).gpus == gpus
    assert ("give price.gpus" in caplog.text) == (not gpus)
    assert with_gpus(Prices(gpus=16), configs, engine).gpus == 16


def test_pools_of_a_dry_run_are_those_of_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []

    def ranked(self: GivenPool, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        asked.extend(query_ids)
        return {q: list(collection.corpus.ids())[:2] for q in query_ids[:1]}

    monkeypatch.setattr(GivenPool, "ranked", ranked)
    monkeypatch.setattr(run_module, "SAMPLE", 2)
    options = ["annotator=utilsel", "candidates=given", "candidates.include_positive=false", "dry_run=true", "limit=8", QUIET]
    found = run_module.annotate(composed("annotate", *options, "llm=openai", "llm.model=m", "llm.base_urls=[]"), tmp_path)
    assert len(asked) == 2
    assert (found["queries"], found["queries_rendered"], found["calls"]) == (4, 1, 12)  # half of eight have candidates


def test_shards_on_one_store_are_the_whole_run_and_are_compared_with_another(annotated: Annotated) -> None:
    before = len(annotated.server.seen)
    annotated.sweep(
        "annotator=utilsel", "shard=1/2,2/2,null", "store=sharded", "against=relsel", into="shard-${hydra.job.num}"
    )
    assert len(annotated.server.seen) == before + 72
    first, second, whole = (annotated.folder / f"shard-{n}" for n in range(3))
    assert [told(run)["calls"] for run in (first, second, whole)] == [36, 36, 0]
    assert told(whole)["calls_answered_by_store"] == 72
    mini = open_collection("mini:train")
    for run, queries in ((first, list(mini.queries)[:24:2]), (second, list(mini.queries)[1:24:2])):
        assert list(dict.fromkeys(r["query_id"] for r in labels(run))) == queries
    rows = labels(whole)
    assert rows == labels(annotated.folder / "utilsel")
    assert sorted(map(str, labels(first) + labels(second))) == sorted(map(str, rows))

    reference = {(r["query_id"], r["doc_id"]): r["label"] for r in labels(annotated.folder / "relsel")}
    equal = sum(r["label"] == reference[r["query_id"], r["doc_id"]] for r in rows)
    against = told(whole, "agreement")["against"]
    assert (against["queries"], against["pairs"], against["precision"]) == (24, 96, 1.0)
    assert against["equal_labels"] == pytest.approx(equal / 96) and 0 < equal < 96
    assert against["recall"] == pytest.approx(24 / sum(reference.values()))
    assert told(first, "agreement")["against"]["pairs"] == 48


def test_a_dry_run_counts_what_the_run_asks_and_asks_nothing(annotated: Annotated) -> None:
    before = len(annotated.server.seen)
    model = [f"llm.model={SMOLLM2}", "store=counted"]
    annotated.run("annotator=relsel", "limit=4", *model, "hydra.run.dir=some")
    annotated.sweep("annotator=relsel,pointwise", "dry_run=true,false", *model, into="counted-${hydra.job.num}")
    assert len(annotated.server.seen) == before + 4 + 20 + 160  # of those that are not dry
    runs = [annotated.folder / f"counted-{n}" for n in range(4)]
    for dry, real, stage, calls in ((runs[0], runs[1], "relsel", 24), (runs[2], runs[3], "pointwise", 160)):
        found, ledger = told(dry, "estimate"), told(real)
        kept = 4 if stage == "relsel" else 0
        assert found["calls"] == ledger["calls"] + kept == found["stages"][stage]["calls"] == calls
        assert (found["sampled_calls"], found["sampled_calls_kept"]) == (calls, kept)
        besides = BESIDES if stage == "pointwise" else 0
        assert (found["pairs"] - 4 * besides, found["queries"] - besides) == (ledger["pairs"], ledger["queries"]) == (96, 24)
        assert found["human_cost"] == pytest.approx(ledger["human_cost"] * (24 + besides) / 24)
        asked = lines(dry / "prompts.jsonl")
        assert [row["stage"] for row in asked] == [stage] * calls
        sent = [
            body["messages"]
            for _, _, body in annotated.server.seen[before:]
            if ("Passage:" in str(body)) == (stage == "pointwise")
        ]
        assert sorted(map(str, sent)) == sorted(str(row["messages"]) for row in asked)
        prompts = [(row["query_id"], smollm2_ids(row["messages"])) for row in asked]
        cached, earlier = 0, {}
        for query_id, ids in prompts:
            cached += max((len(os.path.commonprefix([ids, other])) for other in earlier.get(query_id, [])), default=0)
            earlier.setdefault(query_id, []).append(ids)
        written = calls * (1 if stage == "pointwise" else tokens("My selection:[[1],[2]]"))
        counts = [found[name] for name in ("tokens_in", "tokens_cached", "tokens_out")]
        assert counts == [sum(len(ids) for _, ids in prompts), cached, written]
        assert found["tokens_counted_by"] == "tokenizer" and (cached > 0) == (stage == "pointwise")
        price = ((counts[0] - cached) * 2000 + cached * 1000 + written * 4000) / 1e6
        assert found["cost"] == pytest.approx(price, abs=1e-4)
    first, second = told(runs[0], "estimate"), told(runs[2], "estimate")
    assert (first["tokens_per_second"], first["seconds"], first["gpu_hours"]) == (None, None, None)
    rate = told(runs[1])["computed_tokens_per_second"]
    assert second["tokens_per_second"] == rate
    computed = second["tokens_in"] - second["tokens_cached"] + second["tokens_out"]
    assert second["seconds"] == pytest.approx(computed / rate, abs=0.1)
    assert told(annotated.folder / "counted", "rates") == {SMOLLM2: told(runs[3])["computed_tokens_per_second"]}
    assert not list(runs[0].glob("labels*")) and not (runs[0] / "ledger.json").exists()


@cache
def smollm2() -> Tokenizer:
    return Tokenizer.from_file(f"{locate(SMOLLM2)}/tokenizer.json")


def tokens(text: str) -> int:
    return len(smollm2().encode(text, add_special_tokens=False).ids)


def smollm2_ids(messages: Messages) -> list[int]:
    """Token ids of a chat by the template of SmolLM2, written anew."""
    first = {"role": "system", "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"}
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in (first, *messages)]
    return smollm2().encode("".join(turns) + "<|im_start|>assistant\n", add_special_tokens=False).ids


class Words:
    """Counts words."""

    name = "words"

    def prompt(self, request: Any) -> list[str]:
        return str(request.messages).split()

    def count(self, prompt: list[str]) -> int:
        return len(prompt)

    def count_text(self, text: str) -> int:
        return len(text.split())


def test_an_estimate_is_that_of_the_sample_in_proportion() -> None:
    sample = [Question(f"q{n}", "why", {f"d{i}": "because of it" for i in range(5)}) for n in range(4)]
    prices = Prices(gpu_hour=3.0, gpus=2, human_judgement=0.1)
    answer = 23 + 2 * 2  # words of the made-up answer and of two selections
    for annotator, calls, written in ((UtilSel(template="utilsel"), 3, answer), (Pointwise(template="pointwise"), 5, 5)):
        few = estimate(render(annotator, sample), 4, Words(), prices, None)
        many = estimate(render(annotator, sample), 4_000, Words(), prices, 50.0)
        assert (few["calls"], few["tokens_out"], few["pairs"]) == (4 * calls, 4 * written, 20)
        assert (few["seconds"], few["cost"]) == (None, None)  # a price by the hour needs a time
        for name in ("calls", "tokens_in", "tokens_cached", "tokens_out", "pairs"):
            assert many[name] == 1_000 * few[name]
        seconds = (many["tokens_in"] - many["tokens_cached"] + many["tokens_out"]) / 50
        assert many["seconds"] == pytest.approx(seconds, abs=0.1)
        assert many["cost"] == pytest.approx(seconds / 3_600 * 2 * 3.0, abs=1e-3)
        assert many["human_cost"] == pytest.approx(2_000.0)


def test_a_shared_prefix_is_estimated_to_be_read_once() -> None:
    passages = {f"d{i}": f"It is because of reason {i} and of many more like it." for i in range(20)}
    sample = [Question("q", "why", passages)]
    found = {
        layout: estimate(render(UtilSel(template="utilsel", layout=layout), sample), 1, Words(), Prices(gpus=0), 1.0)
        for layout in ("paper", "shared_prefix")
    }
    assert found["shared_prefix"]["tokens_in"] > found["paper"]["tokens_in"]  # all passages at every stage
    assert found["shared_prefix"]["seconds"] < 0.75 * found["paper"]["seconds"]


def test_an_ensemble_of_two_models_asks_both_and_one_that_fails_abstains(annotated: Annotated) -> None:
    before = len(annotated.server.seen)
    annotated.server.fault = lambda number, body: "prose" if body["model"] == "second" else None
    second = ["+llm@llms.second=openai", f"llms.second.base_urls=[{annotated.server.url}]", "llms.second.model=second"]
    annotated.run("annotator=ensemble", "annotator@annotator.member=relsel", *second, "store=voted", "hydra.run.dir=voted")
    annotated.server.fault = lambda number, body: None
    assert [body["model"] for _, _, body in annotated.server.seen[before:]].count("second") == 24
    assert len(annotated.server.seen) == before + 48
    ledger = told(annotated.folder / "voted")
    assert (ledger["model"], ledger["outcomes"]) == (["gold", "second"], {"ok": 24, "unparsable": 24})
    assert len(lines(annotated.folder / "voted" / "failures.jsonl")) == 24
    chosen = {(r["query_id"], r["doc_id"]): r["label"] for r in labels(annotated.folder / "relsel")}
    rows = labels(annotated.folder / "voted")
    assert {(r["query_id"], r["doc_id"]): r["label"] for r in rows} == chosen
    assert {(r["label"], r["score"], r["uncertainty"]) for r in rows} == {(1, 1.0, None), (0, 0.0, None)}


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
    """In fp32, which all CPUs compute alike: how bf16 is rounded is a matter of the CPU."""
    done = command("annotate", "limit=6", "llm.dtype=fp32", QUIET, "hydra.run.dir=fresh")
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
