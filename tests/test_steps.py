"""Runs of so many steps, whatever their labels are."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMALL, metrics, ok

from uar.errors import UserError
from uar.labels import Example, Stage
from uar.training.steps import with_steps

Command = Callable[..., subprocess.CompletedProcess[str]]


def stage(queries: int, epochs: int = 1, batch_size: int | None = None, weight: float = 1.0) -> Stage:
    examples = [Example(f"q{n}", ("d",), (), "human", weight=weight if n else 1.0) for n in range(queries)]
    return Stage("s", examples, epochs, "one", batch_size=batch_size)


@pytest.mark.parametrize(
    ("stages", "steps", "expected"),
    [
        ([stage(100)], 7, [7]),
        ([stage(100), stage(20)], 12, [10, 2]),
        ([stage(100), stage(20)], 13, [11, 2]),
        ([stage(100), stage(1)], 5, [4, 1]),
        ([stage(1), stage(1), stage(1000)], 3, [1, 1, 1]),
        ([stage(50, epochs=2), stage(20)], 12, [10, 2]),
        ([stage(100), stage(20, batch_size=2)], 10, [6, 4]),  # 100 / 8 and 20 / 2
        ([stage(100, weight=0.0), stage(1)], 10, [5, 5]),  # queries of weight 0 are left out
    ],
)
def test_the_steps_are_shared_as_epochs_would_share_them(stages: list[Stage], steps: int, expected: list[int]) -> None:
    assert [s.steps for s in with_steps(stages, steps, 8)] == expected


def test_without_a_number_the_epochs_stand_and_too_few_are_refused() -> None:
    assert [s.steps for s in with_steps([stage(3)], None, 8)] == [None]
    with pytest.raises(UserError, match=r"training\.steps=1: there are 2 stages"):
        with_steps([stage(3), stage(3)], 1, 8)


def test_a_run_of_steps_ends_in_an_epoch_and_scores_dev_there(command: Command, tiny: list[str], tmp_path: Path) -> None:
    quick = [*SMALL, *tiny, "rag=off", "logger=none", "label_source=mixed", "human_frac=0.5", "baselines=[]"]
    ok(command("train", *quick, "training.steps=13", "hydra.run.dir=run"))  # epochs would be 6 and 3
    trained = metrics(tmp_path / "run")["train"]
    assert [trained[name]["steps"] for name in ("llm", "human")] == [9, 4]
    assert all(trained[name]["best dev nDCG@10"] is not None for name in ("llm", "human"))
    refused = command("train", *quick, "training.steps=13", "trainer.max_steps=2", "hydra.run.dir=other")
    assert refused.returncode and "give one of the two" in refused.stderr
