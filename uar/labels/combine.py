"""Judgements of several annotators of the same queries as one."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from uar.annotation.annotators.scored import entropy
from uar.annotation.judgement import Judged, Judgement
from uar.errors import UserError
from uar.labels.combination import Combination
from uar.labels.source import LabelContext

RULES = ("any", "majority", "all")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Votes(Combination):
    """Labels by what `any`, a `majority` or `all` of the annotators say, see `combine`."""

    rule: str = "any"

    def combine(self, judged: Mapping[str, Judged], context: LabelContext) -> tuple[Judged, dict[str, Any] | None]:
        return combine(judged, self.rule), None


def combine(judged: Mapping[str, Judged], rule: str) -> Judged:
    """`judged`: by name of the annotator, its judgements. A passage of a query gets label 1 where `any`, a `majority` or `all`
    of the annotators say so: more than half is a majority, so that two that differ have none. Those that did not judge a
    passage count as well: where theirs could turn its label, a passage has none, but under `any`, for which one yes is enough
    and no other vote is waited for.

    Score is the mean over the annotators of the passage's place in their ranking, from 1 (first) down to 0 (last), since their
    own scores have different units; uncertainty is the entropy in bits of the share of yes, None where one alone judged it.
    """
    if rule not in RULES:
        raise UserError(f"combine={rule!r}; allowed: {', '.join(RULES)}")
    queries = dict.fromkeys(q for found in judged.values() for q in found)
    joined = {q: _query({name: found[q] for name, found in judged.items() if q in found}, rule, len(judged)) for q in queries}
    pairs = {(q, j.doc_id) for found in judged.values() for q, judgements in found.items() for j in judgements}
    without = len(pairs) - sum(map(len, joined.values()))
    if without:
        line = "combine=%s: %d of %d passages have no label, since not all of the %d annotators judged them"
        log.info(line, rule, without, len(pairs), len(judged))
    return {q: judgements for q, judgements in joined.items() if judgements}


def _label(votes: Sequence[int], annotators: int, rule: str) -> int | None:
    """None where the annotators that did not judge could turn it."""
    yes, no = sum(votes), len(votes) - sum(votes)
    if rule == "any":
        return int(yes > 0)
    if rule == "all":
        return 1 if yes == annotators else 0 if no else None
    return 1 if 2 * yes > annotators else 0 if 2 * no >= annotators else None


def _query(said: Mapping[str, Sequence[Judgement]], rule: str, annotators: int) -> list[Judgement]:
    votes: dict[str, dict[str, Judgement]] = {}
    for name, judgements in said.items():
        for judgement in judgements:
            votes.setdefault(judgement.doc_id, {})[name] = judgement
    lengths = {name: len(judgements) for name, judgements in said.items()}
    found = []
    for doc_id, by_name in votes.items():
        share = fmean(j.label for j in by_name.values())
        place = fmean(1 - (j.rank - 1) / max(1, lengths[n] - 1) for n, j in by_name.items())
        label = _label([j.label for j in by_name.values()], annotators, rule)
        if label is None:
            continue
        doubt = entropy(share) if len(by_name) > 1 else None
        who = [n for n, j in by_name.items() if j.label == label]
        found.append(Judgement(doc_id, label, label, place, 0, uncertainty=doubt, by="+".join(who)))
    ordered = sorted(found, key=lambda j: (-j.label, -(j.score or 0.0), j.doc_id))
    return [replace(j, rank=rank) for rank, j in enumerate(ordered, start=1)]
