"""Judgements of several annotators of the same queries as one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from uar.annotation.annotators.scored import entropy
from uar.annotation.judgement import Judged, Judgement
from uar.errors import UserError

RULES = {"any": lambda share: share > 0, "majority": lambda share: share > 0.5, "all": lambda share: share == 1}


def combine(judged: Mapping[str, Judged], rule: str) -> Judged:
    """`judged`: by name of the annotator, its judgements. Every query that one of them judged gets label 1 where `any`, a
    `majority` or `all` of those that judged the passage say so. Score is the mean over the annotators of the passage's place
    in their ranking, from 1 (first) down to 0 (last), since their own scores have different units; uncertainty is the entropy
    in bits of the share of yes."""
    if rule not in RULES:
        raise UserError(f"combine={rule!r}; allowed: {', '.join(RULES)}")
    queries = dict.fromkeys(q for found in judged.values() for q in found)
    return {q: _query({name: found[q] for name, found in judged.items() if q in found}, rule) for q in queries}


def _query(said: Mapping[str, Sequence[Judgement]], rule: str) -> list[Judgement]:
    votes: dict[str, dict[str, Judgement]] = {}
    for name, judgements in said.items():
        for judgement in judgements:
            votes.setdefault(judgement.doc_id, {})[name] = judgement
    lengths = {name: len(judgements) for name, judgements in said.items()}
    found = []
    for doc_id, by_name in votes.items():
        share = fmean(j.label for j in by_name.values())
        place = fmean(1 - (j.rank - 1) / max(1, lengths[n] - 1) for n, j in by_name.items())
        label = int(RULES[rule](share))
        who = [n for n, j in by_name.items() if j.label == label]
        found.append(Judgement(doc_id, label, label, place, 0, uncertainty=entropy(share), by="+".join(who)))
    ordered = sorted(found, key=lambda j: (-j.label, -(j.score or 0.0), j.doc_id))
    return [replace(j, rank=rank) for rank, j in enumerate(ordered, start=1)]
