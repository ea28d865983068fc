"""Questions that are scored and learnt from too, or choose the weights, are told."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SMALL, ok

from uar.collections import Collection, Query, open_collection
from uar.labels import Example, Stage
from uar.training.seen_questions import tell_seen

LEARNT = Stage("human", [Example("q1", ("d1",), (), "human"), Example("q2", ("d2",), (), "human", weight=0.0)], 1, "one")


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def renamed(collection: Collection, texts: dict[str, str]) -> Collection:
    """Questions of other ids with the judgements of q1."""
    queries = {query_id: Query(query_id, text) for query_id, text in texts.items()}
    return replace(collection, queries=queries, qrels=dict.fromkeys(texts, {"d1": 1}))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message.partition(": ")[2] for message in caplog.messages]


def test_questions_are_the_same_by_their_words(toy: Collection, caplog: pytest.LogCaptureFixture) -> None:
    again, heavy = " What  PUMPS blood", toy.queries["q2"].text
    test = renamed(toy, {"a": again, "b": heavy, "c": "what else"})
    tell_seen([LEARNT], toy, None, [test, renamed(toy, {"q1": "another question"})])
    assert told(caplog) == ["1 of 3 questions are learnt from too, and their scores say nothing of new questions"]


def test_questions_that_choose_the_weights_are_told(toy: Collection, caplog: pytest.LogCaptureFixture) -> None:
    tell_seen([LEARNT], toy, (toy, ["q2", "q3"]), [renamed(toy, {"a": toy.queries["q3"].text, "b": "what else"})])
    assert told(caplog) == ["1 of 2 questions choose the weights too (dataset.dev), and their scores flatter the model"]
    caplog.clear()
    tell_seen([LEARNT], toy, (toy, ["q1", "q3"]), [])
    assert told(caplog) == ["1 of 2 questions choose the weights and are learnt from too (dataset.dev)"]


def test_a_training_that_is_scored_on_its_own_questions_says_so(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    given = [*SMALL, "label_source=human", "training.steps=1", "dataset.dev=null", "baselines=[]", "rag=off", "logger=none"]
    said = ok(command("train", *given, "dataset.test=[mini:train,mini:test]", "hydra.run.dir=run"))
    assert "mini:train: 24 of 168 questions are learnt from too" in said and "mini:test: " not in said
