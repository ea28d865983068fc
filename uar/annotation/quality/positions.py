"""Whether a judge prefers a place: how many of the passages shown there got label 1."""

from collections.abc import Mapping, Sequence
from typing import Any

from uar.annotation.annotators import Annotator, Judged


def by_position(annotator: Annotator, pools: Mapping[str, Sequence[str]], judged: Judged) -> list[dict[str, Any]]:
    """For each place of the pools as they were shown, from 1, the `passages` shown there and the share of `positives` among
    them: of an ensemble each member's labels by its own order. Where pools are shuffled the shares differ by chance alone for
    a judge without a preference. Empty for annotators whose calls show no other passage."""
    if annotator.passage_wise or not annotator.needs_llm:
        return []
    passages: dict[int, int] = {}
    positives: dict[int, int] = {}
    for query_id, judgements in judged.items():
        by_id = {j.doc_id: j for j in judgements}
        for member, order in enumerate(annotator.orders(query_id, pools[query_id])):
            for place, doc_id in enumerate(order, start=1):
                judgement = by_id.get(doc_id)
                label = None if judgement is None else judgement.votes[member] if judgement.votes else judgement.label
                if label is not None:
                    passages[place] = passages.get(place, 0) + 1
                    positives[place] = positives.get(place, 0) + label
    return [
        {"position": place, "passages": passages[place], "positives": positives[place] / passages[place]}
        for place in sorted(passages)
    ]
