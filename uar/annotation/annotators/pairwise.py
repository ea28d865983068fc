"""Pairwise: which of two passages helps more; Bradley-Terry scores from some of the pairs of a pool."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from uar.annotation.annotators.picking import Picking
from uar.annotation.annotators.scored import Rule, same_thresholds
from uar.annotation.bradley_terry import bradley_terry
from uar.errors import UserError
from uar.llm.call import Chain, Question
from uar.llm.record import Outcome
from uar.storage.ordering import rank_of


@dataclass(frozen=True)
class Pairwise(Picking):
    """One call shows two passages and asks which helps more; the probability of either letter is how far it wins. Each passage
    of a pool meets `opponents` others (None: all), see `meetings`, half of them from the first place, since a model may prefer
    what it sees first; `both_orders` asks each pair twice. Score = that of Bradley and Terry, see `bradley_terry`,
    uncertainty = its standard error; positives by `rule`, `threshold` and `floor`, see `Rule`. A pair whose reply failed is
    left out, and a passage without any comparison is not judged.
    """

    opponents: int | None = 4
    both_orders: bool = False
    rule: str = "top_percent"
    threshold: float | None = None
    floor: float | None = None

    def __post_init__(self) -> None:
        if self.opponents is not None and self.opponents < 2:
            raise UserError(f"annotator.opponents={self.opponents}: at least 2 are needed, or null for all")
        self._rule  # noqa: B018
        super().__post_init__()

    @property
    def _rule(self) -> Rule:
        return Rule(self.rule, self.threshold, self.floor)

    @property
    def stages(self) -> tuple[str, ...]:
        return ("pairwise",)

    def notes(self, sizes: Iterable[int]) -> str | None:
        given = list(sizes)
        size = max(given, default=0)
        calls = len(meetings("", [str(n) for n in range(size)], self.opponents)) * (1 + self.both_orders)
        same = same_thresholds(given, self._rule.least) if self.rule == "top_percent" else None
        return f"{size} passages take {calls} comparisons a question{f'; {same}' if same else ''}" if size else None

    def judgements(self, question: Question) -> Chain:
        pool = list(question.passages)
        if len(pool) < 2:
            return self._rule.judge(dict.fromkeys(pool, 0.0))
        shown = meetings(question.id, pool, self.opponents)
        shown += [(b, a) for a, b in shown] if self.both_orders else []
        replies = yield [self.pick(question, pair) for pair in shown]
        place = {d: at for at, d in enumerate(pool)}
        pairs, wins = [], []
        for (a, b), reply in zip(shown, replies, strict=True):
            outcome, said = self.said(reply, 2)
            if outcome == Outcome.OK:
                pairs.append((place[a], place[b]))
                wins.append(1 / (1 + np.exp(np.clip(said[1] - said[0], -50, 50))))
        scores, errors = bradley_terry(len(pool), np.array(pairs, int).reshape(-1, 2), np.array(wins))
        met = {at for pair in pairs for at in pair}
        judged = self._rule.judge_answered({d: float(scores[at]) if at in met else None for d, at in place.items()})
        return judged and [replace(j, uncertainty=float(errors[place[j.doc_id]])) for j in judged]


def meetings(query_id: str, pool: Sequence[str], opponents: int | None) -> list[tuple[str, str]]:
    """Pairs of a pool, in which each passage meets `opponents` others (an odd number: one more), or all where there are no
    more. Places on a circle, drawn by (query id, passage id), meet at some distances; each passage stands first as often as
    second. The smallest distance is 1, so that comparisons join all passages."""
    circle = sorted(pool, key=lambda d: rank_of(0, "pair", query_id, d))
    size = len(circle)
    half = size // 2
    wanted = half if opponents is None else min(half, -(-opponents // 2))
    distances = [1 + at * half // wanted for at in range(wanted)] if wanted else []
    found = []
    for distance in distances:
        number = half if 2 * distance == size else size
        found += [(circle[at], circle[(at + distance) % size]) for at in range(number)]
    return found
