"""(query, passage) pairs as arrays: what an annotator says of each beside what people, or another annotator, say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uar.annotation.judgement import Judged, Judgement
from uar.collections import Collection

Counts = dict[str, np.ndarray]  # by name


@dataclass(frozen=True)
class Pairs:
    """Arrays of (pairs,), the pairs of a query in one run of them. `query`: place in `query_ids`. `known`: whether the other
    side has judged the pair; elsewhere its label and grade are 0."""

    query_ids: list[str]
    doc_ids: list[str]
    query: np.ndarray
    label: np.ndarray
    grade: np.ndarray
    rank: np.ndarray
    known: np.ndarray
    other_label: np.ndarray
    other_grade: np.ndarray

    def per_query(self, values: np.ndarray) -> np.ndarray:
        """Sums a query of values of (pairs,): (queries,)."""
        return np.bincount(self.query, values, minlength=len(self.query_ids))

    def best_ranked(self) -> np.ndarray:
        """(queries,) places of each query's pair of the best rank, the first of equals."""
        order = np.lexsort((self.rank, self.query))
        return order[np.searchsorted(self.query[order], np.arange(len(self.query_ids)))]

    def known_counts(self) -> Counts:
        """Of the known pairs of each query: the cells tp, fp, fn, tn of the labels, the other side taken as the truth, and
        the sums that quadratically weighted kappa is a function of."""
        values = counted(self.label > 0, self.other_label > 0, self.grade, self.other_grade)
        return {name: self.per_query(value * self.known) for name, value in values.items()}

    def confusion(self) -> dict[str, Any]:
        """Counts of the known pairs by grade: a row a grade of the other side, a column a grade of the annotator."""
        rows, row = np.unique(self.other_grade[self.known], return_inverse=True)
        columns, column = np.unique(self.grade[self.known], return_inverse=True)
        counts = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
        return {
            "rows": rows.tolist(),
            "columns": columns.tolist(),
            "counts": counts.reshape(len(rows), len(columns)).tolist(),
        }


def counted(ours: np.ndarray, theirs: np.ndarray, grade: np.ndarray, other: np.ndarray) -> Counts:
    """What a pair adds to the cells of both labels and to the sums that weighted kappa is a function of; all (pairs,)."""
    return {
        "tp": ours & theirs,
        "fp": ours & ~theirs,
        "fn": ~ours & theirs,
        "tn": ~ours & ~theirs,
        "grades": grade,
        "other_grades": other,
        "squares": grade**2 + other**2,
        "squared_differences": (grade - other) ** 2,
    }


def human_pairs(collection: Collection, judged: Judged) -> Pairs:
    """All judged pairs of the queries that people judged; the other side is the qrels, its label 1 from `positive_grade`."""
    kept = {q: judgements for q, judgements in judged.items() if judgements and q in collection.qrels}
    found = [collection.qrels[q].get(j.doc_id) for q, judgements in kept.items() for j in judgements]
    labels = [int(grade is not None and grade >= collection.positive_grade) for grade in found]
    return _pairs(kept, [grade is not None for grade in found], labels, [grade or 0 for grade in found])


def shared_pairs(judged: Judged, reference: Judged) -> Pairs:
    """The pairs that both annotators judged; the other side is the reference."""
    kept: dict[str, list[Judgement]] = {}
    others: list[Judgement] = []
    for query_id, judgements in judged.items():
        theirs = {j.doc_id: j for j in reference.get(query_id, ())}
        shared = [j for j in judgements if j.doc_id in theirs]
        if shared:
            kept[query_id] = shared
            others += [theirs[j.doc_id] for j in shared]
    return _pairs(kept, [True] * len(others), [j.label for j in others], [j.grade for j in others])


def _pairs(kept: Mapping[str, Sequence[Judgement]], known: list[bool], labels: list[int], grades: list[int]) -> Pairs:
    flat = [j for judgements in kept.values() for j in judgements]
    return Pairs(
        query_ids=list(kept),
        doc_ids=[j.doc_id for j in flat],
        query=np.repeat(np.arange(len(kept)), [len(judgements) for judgements in kept.values()]),
        label=np.array([j.label for j in flat], dtype=np.int64),
        grade=np.array([j.grade for j in flat], dtype=np.int64),
        rank=np.array([j.rank for j in flat], dtype=np.int64),
        known=np.array(known, dtype=bool),
        other_label=np.array(labels, dtype=np.int64),
        other_grade=np.array(grades, dtype=np.int64),
    )
