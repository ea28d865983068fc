"""What a stage makes of passages that an earlier stage has as positives of the same query."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from uar.collections import Query
from uar.errors import UserError
from uar.labels.examples import Example, Pair, example_of
from uar.labels.source import Stage

log = logging.getLogger(__name__)
RULES = ("negative", "ignore", "positive")


def check_rule(rule: str) -> None:
    if rule not in RULES:
        raise UserError(f"label_source.other_positives={rule!r}; allowed: {', '.join(RULES)}")


def with_other_positives(stages: Sequence[Stage], rule: str, queries: Mapping[str, Query]) -> list[Stage]:
    """The stages, each knowing the positives of those before it.

    A passage that an earlier stage has as a positive of a query, or of one that asks the same, and this one has not, is by
    `rule` here `negative`, what this stage's own labels make of it; `ignore`, not learnt from and never a negative; or
    `positive`, a positive here too.
    """
    check_rule(rule)
    known: dict[tuple[str, str | None], dict[str, Pair]] = {}
    found = []
    for stage in stages:
        asked = [queries[example.query_id].asked for example in stage.examples]
        before = [known.get(one, {}) for one in asked]
        hard = sum(len(own.keys() & set(e.negatives)) for e, own in zip(stage.examples, before, strict=True))
        if hard:
            log.info(
                "Stage %s: %d hard negatives are positives of an earlier stage; other_positives=%s", stage.name, hard, rule
            )
        if known and rule != "negative":
            examples = [_treated(e, own, rule) for e, own in zip(stage.examples, before, strict=True)]
            found.append(replace(stage, examples=examples))
        else:
            found.append(stage)
        for one, example in zip(asked, stage.examples, strict=True):
            known.setdefault(one, {}).update({p.doc_id: p for p in example.pairs() if p.label})
    return found


def _treated(example: Example, known: dict[str, Pair], rule: str) -> Example:
    others = {d: pair for d, pair in known.items() if d not in example.positives and d not in example.ignored}
    if not others:
        return example
    own = list(example.pairs())
    ignored = list(example.ignored)
    if rule == "ignore":
        pairs, ignored = [p for p in own if p.doc_id not in others], [*ignored, *others]
    else:  # utilities of two stages may have different units
        of_own = {p.doc_id: p.utility for p in own}
        joined = [Pair(d, 1, pair.source, of_own.get(d)) for d, pair in others.items()]
        pairs = [*(p for p in own if p.doc_id not in others), *joined]
    return example_of(example.query_id, pairs, example.source, ignored, example.weight)
