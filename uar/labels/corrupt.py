"""Labels made worse on purpose: what is a loss worth when a known share of the labels is wrong?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from uar.annotation.annotators import Judgement
from uar.errors import UserError
from uar.storage.ordering import rank_of


def corrupted(judged: Mapping[str, Sequence[Judgement]], share: float, seed: int) -> dict[str, Sequence[Judgement]]:
    """`judged` with the labels of `share` of the queries moved: each positive changes places with a judged passage that is
    none, drawn at random, so that label, grade and score go to the wrong one and the number of positives stays.

    The share is of the queries that have both kinds of passages. Which queries and which passages is a function of (seed,
    query id): a larger share has the wrong labels of a smaller one, and further ones.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UserError(f"label_source.corrupt={share}: a share from 0 to 1 is needed, such as 0.2")
    movable = [q for q, found in judged.items() if len({bool(j.label) for j in found}) == 2]
    wrong = set(sorted(movable, key=lambda q: rank_of(seed, "corrupt", q))[: round(share * len(movable))])
    return {q: _moved(found, q, seed) if q in wrong else found for q, found in judged.items()}


def _moved(judgements: Sequence[Judgement], query_id: str, seed: int) -> list[Judgement]:
    positives = [j.doc_id for j in judgements if j.label]
    others = [j.doc_id for j in judgements if not j.label]
    drawn = sorted(others, key=lambda d: rank_of(seed, "corrupt", query_id, d))
    pairs = list(zip(positives, drawn, strict=False))  # the smaller kind says how many
    to = {a: b for a, b in pairs} | {b: a for a, b in pairs}
    return [replace(j, doc_id=to.get(j.doc_id, j.doc_id)) for j in judgements]
