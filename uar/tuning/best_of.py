"""Best of N: the best of several replies to a prompt is learned (rejection sampling)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from uar.errors import UserError
from uar.llm.record import Outcome
from uar.tuning.rollouts import ROLLOUTS, Rollout, write_rollouts
from uar.tuning.sft import SFT
from uar.tuning.token_rows import drawn_row
from uar.tuning.tuner import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BestOf(SFT):
    """Each case is asked `samples` times at `temperature`. Its best reply is learned where its reward is above that of the
    worst by `margin` at least, so that a case whose replies are all alike teaches nothing."""

    samples: int
    temperature: float
    margin: float

    needs_targets: ClassVar[bool] = False
    needs_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampling(self.samples, self.temperature)

    def tune(self, work: Work) -> Any:
        pairs = drawn_pairs(work, self.samples, self.temperature, self.margin)
        return self.learn(work, [drawn_row(work.tokenizer, best.rolled) for best, _ in pairs])


def check_sampling(samples: int, temperature: float) -> None:
    if samples < 2:
        raise UserError(f"tuner.samples={samples}: at least 2 replies a prompt are needed, one of which is better")
    if temperature <= 0:
        raise UserError(f"tuner.temperature={temperature}: above 0 is needed, or all replies to a prompt are alike")


def drawn_pairs(work: Work, samples: int, temperature: float, margin: float) -> list[tuple[Rollout, Rollout]]:
    """`best_and_worst` of so many replies to each case, all of which are kept in the run folder."""
    rollouts = work.asked.rollouts(work.cases, samples, temperature)
    write_rollouts(work.folder / ROLLOUTS, rollouts)
    return best_and_worst(rollouts, margin)


def best_and_worst(rollouts: Sequence[Sequence[Rollout]], margin: float) -> list[tuple[Rollout, Rollout]]:
    """Of each case the first of its best replies that can be read, and of its worst ones, where their rewards differ by
    `margin` and by more than nothing. A call that ended in an error has no reply. UserError where no case has such replies."""
    found = []
    for drawn in rollouts:
        written = [one for one in drawn if one.rolled.reply.outcome != Outcome.ERROR]
        readable = [one for one in written if one.rolled.value is not None]
        if not readable:
            continue
        best, worst = max(readable, key=lambda one: one.reward), min(written, key=lambda one: one.reward)
        if best.reward > worst.reward and best.reward - worst.reward >= margin:
            found.append((best, worst))
    every = [one.reward for drawn in rollouts for one in drawn]
    log.info(
        "Rewards of %d replies: mean %.4f, of the best of each prompt %.4f; %d of %d prompts have better and worse replies",
        len(every), sum(every) / len(every), sum(max(o.reward for o in d) for d in rollouts) / len(rollouts), len(found),
        len(rollouts),
    )  # fmt: skip
    if not found:
        raise UserError(
            f"no prompt has a reply whose reward is above another's (tuner.margin={margin}), so there is nothing to learn; "
            "give more tuner.samples, a higher tuner.temperature, another reward, or a stronger llm"
        )
    return found
