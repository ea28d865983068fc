"""Rewards of the reply alone: that it can be read, how long it is, how it agrees with gold answers or with labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from uar.collections import Collection
from uar.collections.answer_match import exact_match, f1
from uar.collections.languages import words_in
from uar.errors import UserError
from uar.tuning.judging_task import JudgingTask
from uar.tuning.reward import Reward, no_gold
from uar.tuning.task import Case, Rolled, Task


@dataclass(frozen=True)
class FormatReward(Reward):
    """1 of each reply that can be read."""

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        return None

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        return [1.0] * len(rolled)


@dataclass(frozen=True)
class LengthReward(Reward):
    """1 of a reply of up to `words` words, then less by the share that it is longer, 0 from twice as many on."""

    words: int = 32

    def __post_init__(self) -> None:
        if self.words < 1:
            raise UserError(f"reward.words={self.words}: at least 1 is needed")

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        return None

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        return [min(1.0, max(0.0, 2.0 - words_in(one.reply.text) / self.words)) for one in rolled]


@dataclass(frozen=True)
class AnswerReward(Reward):
    """EM + `f1` · F1 of the reply, which is an answer, against the gold answers."""

    f1: float = 1.0

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        if not any(case.question.answers for case in cases):
            raise no_gold("answer", collection, "gold answers", "give dataset.answers=FILE; of queries reward=frozen_reader")

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        gold = [one.case.question.answers for one in rolled]
        return [exact_match(one.value, g) + self.f1 * f1(one.value, g) for one, g in zip(rolled, gold, strict=True)]


@dataclass(frozen=True)
class AgreementReward(Reward):
    """1 of a judgement that is the label's: the same grade, or the same passage picked."""

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        if not isinstance(task, JudgingTask):
            raise UserError("reward=agreement compares judgements with labels; it is for task=pointwise and task=setwise")

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        if not isinstance(task, JudgingTask):
            raise TypeError(type(task).__name__)
        return [float(one.value == task.right(one.case)) for one in rolled]
