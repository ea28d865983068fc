"""Annotation by two Ray Data actors that write to one store."""

import json
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from import_spy import records, spied
from llm_server import gold_answers, serve

from uar.annotation.annotators import RelSel
from uar.collections import open_collection
from uar.llm.engines.ray import Actor
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
    questions = PooledQuestions(mini, {q: mini.positives(q) for q in list(mini.queries)[:number]})
    actor = Actor(questions.opener(), relsel, [llm], ["m"], str(folder / "store"), (), str(Path.cwd()))
    (pickled,) = actor({"item": [pickle.dumps(item) for item in questions.items()]})["result"]
    result, _, progress, _, error = pickle.loads(pickled)
    return result, progress, error


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
