"""The best of an index whose equal scores may go on past the last one that is kept."""

from collections.abc import Callable
from typing import Any

import numpy as np

Found = tuple[np.ndarray, np.ndarray]  # scores and rows, both (queries, k)
Ranks = Callable[[], np.ndarray]  # the place of each row among equal scores


def first_of(index: Any, queries: np.ndarray, k: int, ranks: Ranks | None) -> Found:
    """The k best that an index finds, which has `search(queries, k)` and `ntotal` as those of faiss. Where equal scores go on
    past the k-th, more are asked for until they end, and those of the lowest rank are kept; without `ranks`, those of the
    lowest row."""
    wide = min(k + 1, index.ntotal)
    scores, rows = index.search(queries, wide)
    if wide <= k:
        return scores, rows
    best, found = scores[:, :k].copy(), rows[:, :k].copy()
    tied = np.flatnonzero((scores[:, k - 1] == scores[:, k]) & (rows[:, k] >= 0))
    places = (ranks() if ranks else np.arange(index.ntotal)) if len(tied) else np.zeros(0, np.int64)
    while len(tied):
        wide = min(2 * wide, index.ntotal)
        scores, rows = index.search(queries[tied], wide)
        order = np.lexsort((places[rows], -scores))[:, :k]
        best[tied], found[tied] = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        go_on = (scores[:, k - 1] == scores[:, -1]) & (rows[:, -1] >= 0) & (wide < index.ntotal)
        tied = tied[go_on]
    return best, found
