"""Candidates of a coarse search, scored again with the whole vectors."""

import numpy as np

from uar.retrievers.ties import Found, Ranks
from uar.retrievers.vector_shards import Rows

NUMBERS = 1 << 25  # of whole vectors held at a time


def rescored(queries: np.ndarray, vectors: Rows, candidates: np.ndarray, k: int, ranks: Ranks | None = None) -> Found:
    """(scores, rows) of the k best of the candidates, (queries, wide) corpus rows filled up with -1, by inner product. Of
    equal scores at the cut the lowest rank is kept; without `ranks` the lowest row."""
    scores = np.empty(candidates.shape, np.float32)
    at_once = max(1, NUMBERS // (candidates.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), at_once):
        some, rows = queries[start : start + at_once], candidates[start : start + at_once]
        whole = vectors.take(np.maximum(rows, 0).ravel()).reshape(*rows.shape, -1)
        scores[start : start + at_once] = np.einsum("qd,qwd->qw", some, whole)
    scores[candidates < 0] = -np.inf
    order = np.lexsort((candidates, -scores))
    best, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(candidates, order, 1)
    if ranks is not None and k < rows.shape[1]:
        tied = np.flatnonzero((best[:, k - 1] == best[:, k]) & (rows[:, k] >= 0))
        if len(tied):
            order = np.lexsort((ranks()[rows[tied]], -best[tied]))
            rows[tied] = np.take_along_axis(rows[tied], order, 1)
    return best[:, :k], rows[:, :k]
