"""From a score a passage to labels: the rules that likelihood, metric and mean-rank annotators share."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.judgement import Judgement
from uar.errors import UserError
from uar.llm.prompted import one_of
from uar.storage.ordering import best_first

DEFAULTS = {"top_percent": 10.0, "margin": 0.2, "at_least": None}  # thresholds where none is given


@dataclass(frozen=True)
class Rule:
    """Positives are, by `name`: `top_percent`, the best `threshold` percent of the pool, rounded down, at least one;
    `margin`, all within `threshold` of the best; `at_least`, all of a score of `threshold` or more. Scores that equal the last
    of these are positive too. `floor`: a score below it is never positive, so that a pool of nothing useful has no positive.
    `threshold` None: that of the rule in `DEFAULTS`."""

    name: str
    threshold: float | None = None
    floor: float | None = None

    def __post_init__(self) -> None:
        one_of("rule", self.name, tuple(DEFAULTS))
        if self.name == "at_least":
            if self.threshold is None:
                raise UserError("annotator.threshold=null: annotator.rule=at_least needs the least score of a positive")
        elif self.least < 0 or (self.name == "top_percent" and self.least > 100):
            raise UserError(f"annotator.threshold={self.threshold}: a percentage (0-100) or a margin (0 or more) is needed")

    @property
    def least(self) -> float:
        """The threshold that counts."""
        default = DEFAULTS[self.name]
        return float(default if self.threshold is None and default is not None else self.threshold or 0.0)

    def judge(self, scores: Mapping[str, float]) -> list[Judgement]:
        """Judgements from the scores of one pool, which may be empty."""
        ranked = best_first(scores.items())
        order = [d for d, _ in ranked]
        if not ranked:
            return []
        if self.name == "top_percent":
            least = ranked[how_many(len(ranked), self.least) - 1][1]
        else:
            least = self.least if self.name == "at_least" else ranked[0][1] - self.least
        chosen = {d for d, score in ranked if score >= max(least, -math.inf if self.floor is None else self.floor)}
        return ranked_judgements(order, {d: int(d in chosen) for d in order}, scores, positive=1)

    def judge_answered(self, scores: Mapping[str, float | None]) -> list[Judgement] | None:
        """Judgements of the passages that have a score, of a pool whose other calls failed. None where none has one, and where
        less than half have one under a rule that compares passages: the best of the few would be a guess."""
        known = {d: score for d, score in scores.items() if score is not None}
        least = 1 if self.name == "at_least" else len(scores) / 2
        return self.judge(known) if len(known) >= min(least, len(scores)) else None


def how_many(size: int, percent: float) -> int:
    """`percent` of so many passages, rounded down, at least one (arXiv 2504.05220)."""
    return max(1, math.floor(size * percent / 100))


def top_percent(order: list[str], percent: float) -> list[str]:
    """The first `percent` of a ranking."""
    return order[: how_many(len(order), percent)]


def same_thresholds(sizes: Iterable[int], percent: float) -> str | None:
    """What a percentage comes to in pools of these sizes, where several percentages come to the same; None for no pool."""
    common = Counter(size for size in sizes if size).most_common(1)
    if not common:
        return None
    size, number = common[0][0], how_many(common[0][0], percent)
    until = f"{100 * (number + 1) / size:.4g}" if number < size else None
    others = f"any percentage below {until}" if number == 1 else f"{100 * number / size:.4g} to below {until}"
    same = f", as {others}" if until else ""
    return f"annotator.threshold={percent:g} is {number} of {size} passages{same}"


def entropy(p: float) -> float:
    """Of a yes or no of probability `p`, in bits: 1 where both are alike."""
    return -sum(x * math.log2(x) for x in (p, 1 - p) if x > 0)
