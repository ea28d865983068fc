"""Options of a tuning that have no effect are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from uar.errors import UserError
from uar.launch.entry import composed
from uar.tuning.unread_options import refuse_unread

READ = [
    ["task=answer", "rag=nq", "rag.top_k=3", "rag.reader.answer_tokens=3", "candidates.k1=2"],
    ["task=rewrite", "expand=keywords", "expand.writer.template=x", "reward=frozen_reader", "llm@rag.llm=openai"],
    ["task=rewrite", "+reward@rewards.reader=frozen_reader", "rag.reader.first_line=false", "limit=3", "tuner=grpo"],
    ["task=pointwise", "annotator=umbrela", "annotator.template=x", "candidates=dense"],
    ["task=co_augmentation", "expand.documents=abstract", "expand.document_writer.tokens=4", "candidates.k1=2"],
]
UNREAD = [
    ("expand.join=replace", "answer"),
    ("rag.measures=[EM]", "answer"),
    ("annotator=umbrela", "answer"),
    ("candidates.k1=2", "rewrite"),
    ("rag.top_k=2", "rewrite"),
    ("llm@expand.llm=openai", "rewrite"),
    ("expand=off", "setwise"),
]


@pytest.mark.parametrize("given", READ)
def test_what_the_task_or_a_reward_reads_is_taken(given: list[str]) -> None:
    refuse_unread(composed("tune", *given), given, "x")


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
