"""Gold answers from files: of more questions than are asked, of a dataset's training split and of its tests."""

import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ok, write_jsonl
from omegaconf import OmegaConf

from uar.collections import Collection, Query, open_collection, open_training_split
from uar.collections.answer_files import with_answers
from uar.evaluation.evaluator import Evaluator


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def test_a_file_may_answer_more_than_the_collection_asks(toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    other = replace(toy, slug="other", queries={"x1": Query("x1", "what is rust", ("iron oxide",))})
    write_jsonl(tmp_path / "a.jsonl", [{"query_id": q, "answers": [f"to {q}"]} for q in ("q1", "q8", "q9")])
    with caplog.at_level(logging.INFO):
        found, untouched = with_answers([toy, other], str(tmp_path / "a.jsonl"), "rag.answers")
    assert "2 of 3 lines answer questions that are not in local:" in caplog.text
    assert found.queries["q1"].answers == ("to q1",) and found.queries["q2"].answers == ()
    assert untouched is other


def test_training_questions_get_answers_from_a_file(folder: Path, tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [{"query_id": "q1", "answers": "the heart"}, {"query_id": "elsewhere", "answers": "x"}])
    for files in (str(tmp_path / "a.jsonl"), {"toy.train": str(tmp_path / "a.jsonl"), "toy.test": "unread.jsonl"}):
        found = open_training_split("train", str(folder), answers=files)
        assert found.answered(["q1", "q2"]) == ["q1"] and found.queries["q1"].answers == ("the heart",)


def test_annotators_ask_about_the_answers_of_the_dataset(
    command: Callable[..., subprocess.CompletedProcess[str]], fails: Callable[..., str], folder: Path, tmp_path: Path
):
    write_jsonl(folder / "queries.jsonl", [{"_id": q, "text": f"what is {q}"} for q in ("q1", "q2", "q3")])
    write_jsonl(tmp_path / "a.jsonl", [{"query_id": "q1", "answers": "the heart"}])
    given = ("annotate", "dataset=local", f"dataset.path={folder}", "annotator=answer_likelihood", "dry_run=true")
    assert "no query with candidates to annotate" in fails(*given)
    assert "1 queries: " in ok(command(*given, "dataset.answers=a.jsonl"))


def test_tests_of_a_dataset_take_its_answers_where_it_has_theirs(toy: Collection, tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [{"query_id": "t1", "answers": "of training"}, {"query_id": "q1", "answers": "mine"}])
    settings = {"measures": ["RR@10"], "rag": {"llm": None, "answers": None}, "search": None, "retrieval_depth": 6}
    other = replace(toy, slug="other", queries={"x1": Query("x1", "what is rust", ("iron oxide",))})
    for files in (str(tmp_path / "a.jsonl"), {"toy.test": str(tmp_path / "a.jsonl"), "toy.train": "unread.jsonl"}):
        evaluator = Evaluator(OmegaConf.create(settings), tmp_path, OmegaConf.create({"files": files}).files)
        found, untouched = evaluator._answered([toy, other])
        assert found.queries["q1"].answers == ("mine",) and untouched is other
