"""Retrieval measures, through ir_measures only."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import ir_measures

from uar.collections import Collection
from uar.errors import UserError
from uar.runs import Run, without_own


def parsed(names: Sequence[str] | str) -> dict[str, Any]:
    """Measures of ir_measures by the names given; UserError where one is unknown or cannot be computed, or none is given."""
    found: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        try:
            found[name] = ir_measures.parse_measure(name)
        except (NameError, SyntaxError, ValueError) as error:
            raise UserError(
                f"measure {name!r} is not known; name it as ir_measures does, such as nDCG@10, RR@10 or R@100"
            ) from error
        try:
            ir_measures.evaluator([found[name]], {})
        except (ValueError, AssertionError) as error:
            raise UserError(f"measure {name!r}: {' '.join(str(error).split())}") from error
    if not found:
        raise UserError("measures is empty; name at least one as ir_measures does, such as nDCG@10")
    return found


def per_query(
    collection: Collection, run: Run, measures: Sequence[str], query_ids: Iterable[str]
) -> list[tuple[str, str, float]]:
    """(query id, measure, value) for the judged ones of `query_ids`; a query without a result scores 0.

    nDCG takes the collection's gains; the binary measures count from `positive_grade` up. The order of the run decides,
    not its scores, so that ties fall as everywhere: score descending, then passage id. Where the collection says so, a
    query's own document is no result.
    """
    judged = [q for q in query_ids if q in collection.qrels]
    run = without_own(collection, run)
    gains = collection.gains()
    relevant = {q: {d: int(g >= collection.positive_grade) for d, g in collection.qrels[q].items()} for q in judged}
    values = {(q, m): 0.0 for q in judged for m in measures}
    places = [float(-at) for at in range(max((len(run.get(q, ())) for q in judged), default=0))]
    passage = itemgetter(0)
    for depth, graded, names in _groups(measures):
        first = places[:depth]
        ranked = {q: dict(zip(map(passage, run[q]), first, strict=False)) for q in judged if run.get(q)}
        if ranked:
            qrels = {q: gains[q] for q in judged} if graded else relevant
            values.update(_calculate(names, qrels, ranked))
    return [(q, m, v) for (q, m), v in values.items()]


def _groups(measures: Sequence[str]) -> list[tuple[int | None, bool, dict[Any, str]]]:
    """(results a query that suffice, whether gains count, names by measure) of measures that are computed together: runs are
    cut for those with a cutoff, since it is the length of the runs that takes time."""
    found: dict[tuple[bool, bool], dict[Any, str]] = {}
    for name, measure in parsed(measures).items():
        whole = "cutoff" not in measure.params or bool(measure.params.get("judged_only"))
        found.setdefault((measure.NAME == "nDCG", whole), {})[measure] = name
    return [
        (None if whole else max(m.params["cutoff"] for m in names), graded, names) for (graded, whole), names in found.items()
    ]


def _calculate(
    names: Mapping[Any, str], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[tuple[str, str], float]]:
    for found in ir_measures.iter_calc(list(names), qrels, run):
        yield (found.query_id, names[found.measure]), float(found.value)


def means(values: Iterable[tuple[str, str, float]]) -> dict[str, float]:
    """Mean a measure over the queries."""
    grouped: dict[str, list[float]] = {}
    for _, measure, value in values:
        grouped.setdefault(measure, []).append(value)
    return {m: sum(v) / len(v) for m, v in grouped.items()}
