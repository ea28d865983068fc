"""Annotation by Ray actors that write to one store."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from import_spy import records, spied
from llm_server import gold_answers, serve

from uar.annotation.annotators import RelSel
from uar.collections import Collection, open_collection
from uar.collections.answer_files import with_answers
from uar.llm.engines.ray import RayEngine, _replica
from uar.llm.engines.work import Work
from uar.llm.pooled import PooledQuestions
from uar.llm.progress import Progress
from uar.llm.store.store import Store
from uar.machine.waiting import ASLEEP, MARK, NAMES

pytest.importorskip("ray")


def test_two_actors_share_the_queries_and_one_store(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    with serve() as server:
        server.answer = gold_answers(open_collection("mini:train"))
        server.reports["/v1/models"] = {"data": [{"id": "gold", "root": "weights/of/gold"}]}
        server.crowd = 5  # an actor asks about four questions at a time: answers wait until the other one asks too
        server.fault = lambda number, body: "400" if number == 5 else None
        options = [
            "annotator=utilsel",
            "llm=openai",
            f"llm.base_urls=[{server.url}]",
            "llm.model=gold",
            "limit=30",
            "logger=none",
        ]
        spy = dict.fromkeys((*NAMES, MARK)) | spied(tmp_path / "spy", "uar.llm.engines.ray")
        on_ray = ["engine=ray", "engine.batch_size=4", "hydra.run.dir=ray", "llm.timeout=300"]
        done = command("annotate", *options, *on_ray, **spy)
        assert done.returncode == 0, done.stderr
        actors = records(tmp_path / "spy")
        assert len(actors) >= 2 and all(actor.items() >= ASLEEP.items() for actor in actors)
        asked = len(server.seen)
        assert 80 <= asked <= 90
        parts = list((tmp_path / "annotations").glob("*.parquet"))
        assert len(parts) == 2 and not list((tmp_path / "annotations").glob("*.jsonl"))  # one of each actor
        rows = pq.read_table(tmp_path / "ray" / "labels.parquet")
        assert len(set(rows["query_id"].to_pylist())) == 29  # the refused call gave no label
        assert (tmp_path / "ray" / "failures.jsonl").read_text().count("\n") == 1
        done = command("annotate", *options, "hydra.run.dir=local")
        assert done.returncode == 0, done.stderr
    ledgers = [json.loads((tmp_path / name / "ledger.json").read_text()) for name in ("ray", "local")]
    served = {"gold": {server.url: {"id": "gold", "root": "weights/of/gold"}}}
    assert [ledger["models_served"] for ledger in ledgers] == [served] * 2
    again = pq.read_table(tmp_path / "local" / "labels.parquet").to_pylist()
    assert len({r["query_id"] for r in again}) == 30
    assert len(server.seen) <= asked + 3  # the refused question alone was asked again
    assert [r for r in again if r["query_id"] in set(rows["query_id"].to_pylist())] == rows.to_pylist()
    assert len(list(Store(tmp_path / "annotations").records("mini.train", ["relsel"], "gold"))) == 30


def answered(relsel: RelSel, llm: dict, folder: Path, number: int) -> tuple[dict, Progress, str | None]:
    """What an actor returns of the first questions of mini, their positives as pools."""
    mini = open_collection("mini:train")
    questions = pooled(mini, slice(number))
    replied = _replica(questions.opener(), relsel, [llm], ["m"], folder / "store", ())(list(questions.items()), None)
    return dict(replied.results), replied.progress, replied.fault


def pooled(collection: Collection, some: slice) -> PooledQuestions:
    return PooledQuestions(collection, {q: collection.positives(q) for q in list(collection.queries)[some]})


def test_an_actor_asks_about_the_questions_as_they_are() -> None:
    mini = open_collection("mini:train")
    queries = {q: replace(query, answers=(f"gold of {q}",)) for q, query in mini.queries.items()}  # of dataset.answers
    questions = pooled(replace(mini, queries=queries), slice(5))
    assert list(questions.opener()()(list(questions.items()))) == list(questions)


def test_an_actor_opens_its_models_once_for_all_rounds(tmp_path: Path) -> None:
    mini = open_collection("mini:train")
    with serve() as server:
        server.answer = gold_answers(mini)
        llm = {"_target_": "uar.llm.models.openai.OpenAI", "model": "gold", "base_urls": [server.url]}
        rounds = [pooled(mini, slice(5)), pooled(mini, slice(5, 12))]
        between: list[int] = []
        work = Work(
            RelSel(template="relsel"), pooled(mini, slice(12)), [llm], tmp_path / "store", 0.0, rounds=rounds,
            between=lambda: between.append(len(work.results)),
        )  # fmt: skip
        RayEngine(actors=1, batch_size=3).run(work, lambda work: None)
    assert (len(work.results), work.progress.calls, between, work.failed) == (12, 12, [5], [])
    serves = [where for where, _ in server.looked_up].count("/v1/models")  # is asked when a model is opened
    assert len(server.seen) == 12 and serves == 1


def test_an_actor_has_the_answers_that_the_run_has(tmp_path: Path) -> None:
    mini = open_collection("mini:train")
    first, second = list(mini.queries)[:2]
    (tmp_path / "answers.jsonl").write_text(json.dumps({"query_id": first, "answers": ["another answer"]}) + "\n")
    (answered_anew,) = with_answers([mini], str(tmp_path / "answers.jsonl"), "dataset.answers", of_all=False)
    questions = PooledQuestions(answered_anew, {q: mini.positives(q) for q in (first, second)})
    there = questions.opener()()(list(questions.items()))
    assert [question.answers for question in there] == [("another answer",), ()]
    assert list(there) == list(questions)


def test_what_stops_an_actor_is_told_with_what_it_had(tmp_path: Path) -> None:
    llm = {
        "_target_": "uar.llm.models.openai.OpenAI",
        "model": "m",
        "base_urls": ["http://127.0.0.1:9/v1"],
        "retries": 0,
        "window": 2,
    }
    relsel = RelSel(template="relsel")
    result, progress, error = answered(relsel, llm, tmp_path, 1)
    assert (result, progress.calls) == ({}, 0)
    assert error and "127.0.0.1:9" in error and "llm.base_urls" in error


def test_an_actor_leaves_the_failure_rate_to_the_driver(tmp_path: Path) -> None:
    with serve() as server:
        server.answer = lambda messages: "prose"
        llm = {"_target_": "uar.llm.models.openai.OpenAI", "model": "m", "base_urls": [server.url]}
        result, progress, error = answered(RelSel(template="relsel"), llm, tmp_path, 60)
    assert (result, progress.calls, len(progress.failures), error) == ({}, 60, 60, None)
