"""How well an annotator agrees with people at least: lower ends of one-sided intervals."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from uar.annotation.judgement import Judged
from uar.annotation.quality.bootstrap import intervals
from uar.annotation.quality.kappa import cohen_kappa, ratio
from uar.annotation.quality.pairs import Counts
from uar.collections import Collection
from uar.llm.failing import lower_bound

RESAMPLES = 2_000
Value = Callable[[Counts], np.ndarray]  # of sums
Measure = tuple[Value, Callable[[Counts, float], float]]  # with Wilson's bound for a z


class AtLeast(NamedTuple):
    """`value`: of the measure; `low`: the lower end of its interval. Both None where the measure is not defined, since people
    gave one of the two labels alone. `pairs`: that people judged."""

    value: float | None
    low: float | None
    questions: int
    pairs: int


def at_least(collection: Collection, judged: Judged, measure: str, level: float = 0.95, seed: int = 0) -> AtLeast:
    """A measure of `MEASURES` over the questions that people and the annotator judged, with people's labels as the truth.

    `low` is the lower of two bounds of level `level`: of a bootstrap over questions, since pairs of a question depend on each
    other, and Wilson's over pairs, since a bootstrap of few errors or none knows no spread (1927,
    doi:10.1080/01621459.1927.10502953).
    """
    counts = _counts(collection, judged)
    sums = {name: values.sum() for name, values in counts.items()}
    questions, pairs = int(sums["questions"]), int(sum(sums[cell] for cell in CELLS))
    compute, wilson = MEASURES[measure]
    value = float(compute(sums)) if questions else float("nan")
    if np.isnan(value):
        return AtLeast(None, None, questions, pairs)
    tail = 100 * (1 - level)
    found = intervals(counts, lambda drawn: {measure: compute(drawn)}, RESAMPLES, seed, (tail, 100.0))
    bounds = [found[measure][0]] if measure in found else []
    return AtLeast(value, min([*bounds, wilson(sums, float(ndtri(level)))]), questions, pairs)


CELLS = ("tp", "fp", "fn", "tn")


def _counts(collection: Collection, judged: Judged) -> Counts:
    """(questions,) of the cells of the labels, and whether the best ranked passage is positive for people."""
    rows = []
    for query_id, judgements in judged.items():
        people = [(j, collection.positive(query_id, j.doc_id)) for j in judgements]
        known = [(j.label > 0, bool(positive)) for j, positive in people if positive is not None]
        if known:
            cells = [sum((ours, theirs) == cell for ours, theirs in known) for cell in _CELLS]
            first = min(judgements, key=lambda j: j.rank)
            rows.append([*cells, bool(collection.positive(query_id, first.doc_id)), 1])
    values = np.array(rows, float).reshape(len(rows), len(CELLS) + 2)
    return dict(zip((*CELLS, "first", "questions"), values.T, strict=True))


_CELLS = ((True, True), (True, False), (False, True), (False, False))  # ours, theirs


def _share(
    part: Callable[[Counts], np.ndarray], whole: Callable[[Counts], np.ndarray], empty: float = float("nan")
) -> Measure:
    """A share; `empty`: its value where the whole is 0."""

    def compute(sums: Counts) -> np.ndarray:
        return np.nan_to_num(ratio(part(sums), whole(sums)), nan=empty)

    def wilson(sums: Counts, z: float) -> float:
        return float(lower_bound(part(sums), whole(sums), z)) if whole(sums) else empty  # type: ignore[arg-type]

    return compute, wilson


ACCURACY = _share(lambda c: c["tp"] + c["tn"], lambda c: c["tp"] + c["fp"] + c["fn"] + c["tn"])
RECALL = _share(lambda c: c["tp"], lambda c: c["tp"] + c["fn"])
SPECIFICITY = _share(lambda c: c["tn"], lambda c: c["tn"] + c["fp"])


def _balanced(sums: Counts) -> np.ndarray:
    return (RECALL[0](sums) + SPECIFICITY[0](sums)) / 2


def _balanced_bound(sums: Counts, z: float) -> float:
    return (RECALL[1](sums, z) + SPECIFICITY[1](sums, z)) / 2


def _kappa_bound(sums: Counts, z: float) -> float:
    """Of kappa with the same margins and Wilson's bound of accuracy in place of accuracy."""
    equal, kappa = ACCURACY[0](sums), cohen_kappa(sums)
    return float(1 - (1 - kappa) * (1 - ACCURACY[1](sums, z)) / (1 - equal)) if equal < 1 else 2 * ACCURACY[1](sums, z) - 1


MEASURES: dict[str, Measure] = {
    "balanced_accuracy": (_balanced, _balanced_bound),
    "accuracy": ACCURACY,
    "kappa": (cohen_kappa, _kappa_bound),
    "precision": _share(lambda c: c["tp"], lambda c: c["tp"] + c["fp"], empty=0.0),
    "recall": RECALL,
    "ranked_first": _share(lambda c: c["first"], lambda c: c["questions"]),
}
