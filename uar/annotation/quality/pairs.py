"""(query, passage) pairs as arrays: what an annotator says of each beside what people, or another annotator, say of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uar.annotation.judged_blocks import blocks_of, of_queries
from uar.annotation.judgement import Judged
from uar.collections import Collection
from uar.storage.segments import ends_of

Counts = dict[str, np.ndarray]  # by name
Others = Callable[[str, Sequence[str]], Iterable[tuple[int, int] | None]]


@dataclass(frozen=True)
class Pairs:
    """Arrays of (pairs,), in the order of the queries. `query`: place in `query_ids`. `score`: NaN where there is none.
    `known`: whether the other side has judged the pair; elsewhere its label and grade are 0."""

    query_ids: list[str]
    query: np.ndarray
    label: np.ndarray
    grade: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    known: np.ndarray
    other_label: np.ndarray
    other_grade: np.ndarray

    def per_query(self, values: np.ndarray) -> np.ndarray:
        """Sums a query of values of (pairs,): (queries,)."""
        return np.bincount(self.query, values, minlength=len(self.query_ids))

    def best_ranked(self) -> np.ndarray:
        """(queries,) places of each query's pair of the best rank, the first of equals."""
        starts = np.searchsorted(self.query, np.arange(len(self.query_ids)))
        best = np.flatnonzero(self.rank == np.minimum.reduceat(self.rank, starts)[self.query])
        return best[np.searchsorted(self.query[best], np.arange(len(self.query_ids)))]

    def known_counts(self) -> Counts:
        """Of the known pairs of each query: the cells tp, fp, fn, tn of the labels, the other side taken as the truth, and
        the sums that quadratically weighted kappa is a function of."""
        of = self.known
        grade, other = self.grade[of].astype(np.int64), self.other_grade[of].astype(np.int64)
        values = counted(self.label[of] > 0, self.other_label[of] > 0, grade, other)
        number = len(self.query_ids)
        return {name: np.bincount(self.query[of], value, minlength=number) for name, value in values.items()}

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

    def by_people(query_id: str, doc_ids: Sequence[str]) -> Iterator[tuple[int, int] | None]:
        for grade in map(collection.qrels[query_id].get, doc_ids):
            yield None if grade is None else (int(grade >= collection.positive_grade), grade)

    return _pairs(of_queries(judged, [q for q in judged if q in collection.qrels]), by_people, alone=True)


def shared_pairs(judged: Judged, reference: Judged) -> Pairs:
    """The pairs that both annotators judged; the other side is the reference."""

    def by_reference(query_id: str, doc_ids: Sequence[str]) -> Iterator[tuple[int, int] | None]:
        theirs = {j.doc_id: (j.label, j.grade) for j in reference.get(query_id, ())}
        return map(theirs.get, doc_ids)

    return _pairs(judged, by_reference, alone=False)


def _pairs(judged: Judged, others: Others, alone: bool) -> Pairs:
    """`others`: (label, grade) of passages of a query by the other side, None where it judged one not. `alone`: whether
    pairs that it did not judge are there too."""
    parts: list[tuple[np.ndarray, ...]] = []
    query_ids: list[str] = []
    for block in blocks_of(judged):
        doc_ids, ends = block.columns["doc_id"].to_pylist(), ends_of(block.sizes).tolist()
        spans = zip(block.query_ids, ends[:-1], ends[1:], strict=True)
        said = [other for query_id, a, b in spans for other in others(query_id, doc_ids[a:b])]
        known = np.array([other is not None for other in said], bool)
        there = np.full(len(said), True) if alone else known
        label, grade = np.array([other or (0, 0) for other in said], np.int32).reshape(-1, 2)[there].T
        places, query = np.unique(block.query[there], return_inverse=True)
        own = (np.asarray(block.columns[name])[there] for name in ("label", "grade", "rank", "score"))
        parts.append(((query + len(query_ids)).astype(np.int32), *own, known[there], label.astype(np.int8), grade))
        query_ids += [block.query_ids[at] for at in places.tolist()]
    columns = zip(*parts, strict=True) if parts else [[np.zeros(0, np.int32)]] * 8
    return Pairs(query_ids, *(np.concatenate(column) for column in columns))
