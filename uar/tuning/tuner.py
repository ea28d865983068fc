"""What a tuner is: it makes of a model one that replies better."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from uar.errors import UserError
from uar.tuning.base_model import BaseModel
from uar.tuning.reward import Rewards
from uar.tuning.rollouts import Asked
from uar.tuning.steps_taken import StepsTaken
from uar.tuning.task import Case
from uar.tuning.trl_training import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What is tuned on. `asked`: asks the model as it is before; `base`: the one that learns, loaded once nobody else is
    asked; `folder`: the run folder; `report`: is told numbers of steps; `name`: of the run, in records."""

    cases: Sequence[Case]
    asked: Asked
    base: BaseModel
    folder: Path
    report: Report
    name: str

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @cached_property
    def tokenizer(self) -> Any:
        return self.base.tokenizer()


@dataclass(frozen=True)
class Tuner(StepsTaken):
    """What `tuner=NAME` instantiates; see `StepsTaken`. `max_length`: a prompt and its reply that have more tokens together
    are left out; None: none is."""

    max_length: int | None

    needs_targets: ClassVar[bool] = False
    needs_rewards: ClassVar[bool] = False

    def check(self, cases: Sequence[Case], rewards: Rewards) -> None:
        """UserError where what it learns from is not there."""
        name = type(self).__name__
        if self.needs_targets and all(case.target is None for case in cases):
            raise UserError(
                f"tuner={name.lower()}: the task knows no right reply; give tuner=best_of, dpo or grpo, or for "
                "task=pseudo_document task.passage_words=64"
            )
        if self.needs_rewards and not rewards:
            raise UserError(f"tuner={name}: it needs a reward; give reward=NAME")

    @abstractmethod
    def tune(self, work: Work) -> Any:
        """The model after it learned, of transformers or peft."""

    def fitting(self, work: Work, lengths: Sequence[int], what: str) -> list[int]:
        """Places of what is short enough, for `max_length` and for the model's positions. `lengths`: in tokens. UserError
        where nothing is."""
        bounds = {"tuner.max_length": self.max_length, "the model's positions": work.base.positions()}
        name, most = min(((n, m) for n, m in bounds.items() if m is not None), key=lambda bound: bound[1], default=("", None))
        kept = [at for at, length in enumerate(lengths) if most is None or length <= most]
        if not kept:
            raise UserError(
                f"each of {len(lengths)} {what} has more tokens than {name}, {most}: the shortest has {min(lengths)}; "
                f"{'give a larger one' if self.max_length == most else 'show less, or tune another model'}"
            )
        if len(kept) < len(lengths):
            line = "%d of %d %s have more tokens than %s, %d, and are left out"
            log.warning(line, len(lengths) - len(kept), len(lengths), what, name, most)
        return kept
