"""From a score a passage to labels: the rules that likelihood, metric and mean-rank annotators share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.judgement import Judgement
from uar.errors import UserError
from uar.llm.prompted import one_of
from uar.storage.ordering import best_first

RULES = ("top_percent", "margin", "at_least")


@dataclass(frozen=True)
class Rule:
    """Positives are, by `name`: `top_percent`, the best `threshold` percent of the pool, rounded down, at least one;
    `margin`, all within `threshold` of the best; `at_least`, all of a score of `threshold` or more."""

    name: str
    threshold: float

    def __post_init__(self) -> None:
        one_of("rule", self.name, RULES)
        if self.name != "at_least" and (self.threshold < 0 or (self.name == "top_percent" and self.threshold > 100)):
            raise UserError(f"annotator.threshold={self.threshold}: a percentage (0-100) or a margin (0 or more) is needed")

    def judge(self, scores: Mapping[str, float]) -> list[Judgement]:
        """Judgements from the scores of one pool, which may be empty."""
        ranked = best_first(scores.items())
        order = [d for d, _ in ranked]
        if self.name == "top_percent":
            chosen = set(top_percent(order, self.threshold))
        else:
            least = self.threshold if self.name == "at_least" else ranked[0][1] - self.threshold if ranked else 0.0
            chosen = {d for d, score in ranked if score >= least}
        return ranked_judgements(order, {d: int(d in chosen) for d in order}, scores, positive=1)

    def judge_answered(self, scores: Mapping[str, float | None]) -> list[Judgement] | None:
        """Judgements of the passages that have a score, of a pool whose other calls failed. None where none has one, and where
        less than half have one under a rule that compares passages: the best of the few would be a guess."""
        known = {d: score for d, score in scores.items() if score is not None}
        least = 1 if self.name == "at_least" else len(scores) / 2
        return self.judge(known) if len(known) >= min(least, len(scores)) else None


def top_percent(order: list[str], percent: float) -> list[str]:
    """The first `percent` of a ranking, rounded down, at least one (arXiv 2504.05220)."""
    return order[: max(1, math.floor(len(order) * percent / 100))]


def entropy(p: float) -> float:
    """Of a yes or no of probability `p`, in bits: 1 where both are alike."""
    return -sum(x * math.log2(x) for x in (p, 1 - p) if x > 0)
