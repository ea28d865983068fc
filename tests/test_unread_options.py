"""Options of a tuning that have no effect are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import instantiate

from uar.errors import UserError
from uar.launch.entry import composed
from uar.tuning.unread_options import refuse_unread

READ = [
    ["task=answer", "rag=nq", "rag.top_k=3", "rag.reader.answer_tokens=3", "candidates.k1=2"],
    ["task=rewrite", "expand=keywords", "expand.writer.template=query_keywords", "reward=frozen_reader", "llm@rag.llm=openai"],
    ["task=rewrite", "+reward@rewards.reader=frozen_reader", "rag.reader.first_line=false", "limit=3", "tuner=grpo"],
    ["task=pointwise", "annotator=umbrela", "annotator.template=umbrela", "candidates=dense"],
    ["task=pointwise", "task.negatives=2", "task.shuffle=false", "annotator.positive_grade=1"],
    ["task=setwise", "task.orders=2", "annotator.window=4", "task.depth=4"],
    ["task=passage_expansion", "expand.documents=abstract", "expand.document_writer.tokens=4", "candidates.k1=2"],
    ["task=co_augmentation", "expand.query_length=90", "expand.documents=abstract", "candidates.k1=2"],
]
UNREAD = [
    ("expand.join=replace", "answer"),
    ("rag.measures=[EM]", "answer"),
    ("annotator=umbrela", "answer"),
    ("candidates.k1=2", "rewrite"),
    ("rag.top_k=2", "rewrite"),
    ("llm@expand.llm=openai", "rewrite"),
    ("expand=off", "setwise"),
    ("expand.join=replace", "passage_expansion"),
    ("expand.query_length=90", "passage_expansion"),
]
IDLE = [
    ("task.shuffle=false", "rewrite"),
    ("task.depth=3", "keywords"),
    ("task.shuffle=true", "co_augmentation"),
    ("task.shuffle=true", "passage_expansion"),
    ("task.orders=2", "pointwise"),
    ("task.negatives=2", "setwise"),
    ("annotator.calibration_queries=3", "pointwise"),
    ("annotator.threshold=0.4", "pointwise"),
    ("annotator.k=2", "setwise"),
]


@pytest.mark.parametrize("given", READ)
def test_what_the_task_or_a_reward_reads_is_taken(given: list[str]) -> None:
    cfg = composed("tune", *given)
    refuse_unread(cfg, given, "x", instantiate(cfg.task, _convert_="all").idle)


@pytest.mark.parametrize(("option", "task"), IDLE)
def test_what_this_task_of_its_kind_does_not_read_is_named(option: str, task: str) -> None:
    given = [f"task={task}", option]
    cfg = composed("tune", *given)
    with pytest.raises(UserError, match=f"{option}: task={task} and its rewards do not read this"):
        refuse_unread(cfg, given, task, instantiate(cfg.task, _convert_="all").idle)


@pytest.mark.parametrize(("option", "task"), UNREAD)
def test_what_neither_reads_is_named(option: str, task: str) -> None:
    given = [f"task={task}", option, "tuner=best_of"]
    with pytest.raises(UserError) as error:
        refuse_unread(composed("tune", *given), given, task)
    assert str(error.value).startswith(f"{option}: task={task} and its rewards do not read this; leave it out")


def test_the_command_says_so_before_it_begins(fails: Callable[..., str], tmp_path: Path) -> None:
    error = fails("uar.tune", "task=answer", "expand.join=replace", "rag.measures=[EM]", "logger=none", "name=x")
    assert "expand.join=replace, rag.measures=[EM]: task=answer and its rewards do not read this" in error
    assert not (tmp_path / "outputs" / "x" / "model").exists()
