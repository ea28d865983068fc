"""Retrieval measures, through ir_measures only."""

from collections.abc import Iterable, Iterator, Sequence

import ir_measures

from uar.collections import Collection
from uar.evaluation.runs import Run

MEASURES = ("nDCG@10", "RR@10", "R@100", "AP")


def per_query(
    collection: Collection, run: Run, measures: Sequence[str], query_ids: Iterable[str]
) -> list[tuple[str, str, float]]:
    """(query id, measure, value) for the judged ones of `query_ids`; a query without a result scores 0.

    nDCG takes the collection's gains; the binary measures count from `positive_grade` up. The order of the run decides,
    not its scores, so that ties fall as everywhere: score descending, then passage id.
    """
    judged = [q for q in query_ids if q in collection.qrels]
    ranked = {q: {d: float(-at) for at, (d, _) in enumerate(run.get(q, ()))} for q in judged}
    ranked = {q: hits for q, hits in ranked.items() if hits}
    gains = collection.gains()
    graded = [ir_measures.parse_measure(m) for m in measures if m.startswith("nDCG")]
    binary = [ir_measures.parse_measure(m) for m in measures if not m.startswith("nDCG")]
    relevant = {q: {d: int(g >= collection.positive_grade) for d, g in collection.qrels[q].items()} for q in judged}
    values = {(q, m): 0.0 for q in judged for m in measures}
    for wanted, qrels in ((graded, {q: gains[q] for q in judged}), (binary, relevant)):
        if wanted and ranked:
            values.update(_calculate(wanted, qrels, ranked))
    return [(q, m, v) for (q, m), v in values.items()]


def _calculate(measures: list, qrels: dict, run: dict) -> Iterator[tuple[tuple[str, str], float]]:
    for found in ir_measures.iter_calc(measures, qrels, run):
        yield (found.query_id, str(found.measure)), float(found.value)


def means(values: Iterable[tuple[str, str, float]]) -> dict[str, float]:
    """Mean a measure over the queries."""
    grouped: dict[str, list[float]] = {}
    for _, measure, value in values:
        grouped.setdefault(measure, []).append(value)
    return {m: sum(v) / len(v) for m, v in grouped.items()}
