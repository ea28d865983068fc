"""The loops of BM25, compiled. They release Python's lock, so that threads run side by side."""

import numpy as np
from numba import njit

BLOCK = 1 << 15  # passages whose scores are summed at a time, so that they stay in the processor's cache


@njit(nogil=True, cache=True)
def count_passages(numbers: np.ndarray, passages: np.ndarray, counts: np.ndarray) -> None:
    """Adds to `counts` in how many passages each term is. numbers: terms; passages: (passages + 1,) places in them."""
    last = np.full(len(counts), -1, np.int64)
    for passage in range(len(passages) - 1):
        for place in range(passages[passage], passages[passage + 1]):
            term = numbers[place]
            if last[term] != passage:
                last[term] = passage
                counts[term] += 1


@njit(nogil=True, cache=True)
def place_postings(
    numbers: np.ndarray,
    passages: np.ndarray,
    row: int,
    term: int,
    free: np.ndarray,
    rows: np.ndarray,
    frequencies: np.ndarray,
) -> None:
    """Fills `rows` and `frequencies` with those of the passages from `row` on, and of as many terms from `term` on as `free`
    has: the first free place of each in both; it is moved on."""
    last = np.full(len(free), -1, np.int64)
    for passage in range(len(passages) - 1):
        for place in range(passages[passage], passages[passage + 1]):
            own = numbers[place] - term
            if own < 0 or own >= len(free):
                continue
            if last[own] != passage:
                last[own] = passage
                rows[free[own]] = row + passage
                frequencies[free[own]] = 1
                free[own] += 1
            else:
                frequencies[free[own] - 1] += 1


@njit(nogil=True, cache=True)
def weigh(ends: np.ndarray, rows: np.ndarray, weights: np.ndarray, idf: np.ndarray, norms: np.ndarray) -> None:
    """Frequencies become weights: idf * tf / (norm of the passage + tf), in fp64. ends: (terms + 1,) places from 0 on."""
    for term in range(len(idf)):
        for place in range(ends[term], ends[term + 1]):
            frequency = np.float64(weights[place])
            weights[place] = np.float64(idf[term]) * (frequency / (norms[rows[place]] + frequency))


@njit(nogil=True, cache=True)
def best_rows(
    terms: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    passages: int,
    ranks: np.ndarray,
    found: np.ndarray,
    scores: np.ndarray,
) -> None:
    """The best passages of a query into `found`, (k,) rows, and `scores`, in no order; -1 and 0 where fewer share a term.

    terms: the query's. Of equal scores the lowest of `ranks`, the place of each row, is kept; without ranks, the lowest row.
    Weights are added in the order of the terms, in fp32.
    """
    k, count = len(found), 0
    place, stop = ends[terms], ends[terms + 1]
    sums = np.zeros(min(BLOCK, passages), np.float32)
    for start in range(0, passages, BLOCK):
        end, touched = min(start + BLOCK, passages), False
        for term in range(len(terms)):
            at, last = place[term], stop[term]
            while at < last and rows[at] < end:
                sums[rows[at] - start] += weights[at]
                at += 1
            touched |= at > place[term]
            place[term] = at
        if not touched:
            continue
        for offset in range(end - start):
            score, row = sums[offset], start + offset
            sums[offset] = 0
            if score <= 0 or (count == k and score < scores[0]):
                continue
            if count < k:
                found[count], scores[count] = row, score
                count += 1
                if count == k:  # from here on a heap, the worst first
                    for at in range(k // 2 - 1, -1, -1):
                        _sink(at, found, scores, ranks)
            elif score > scores[0] or (len(ranks) and ranks[row] < ranks[found[0]]):
                found[0], scores[0] = row, score
                _sink(0, found, scores, ranks)


@njit(nogil=True, cache=True)
def _sink(at: int, found: np.ndarray, scores: np.ndarray, ranks: np.ndarray) -> None:
    """Moves an entry of the heap down to its place."""
    while 2 * at + 1 < len(found):
        child = 2 * at + 1
        if child + 1 < len(found) and _worse(child + 1, child, found, scores, ranks):
            child += 1
        if not _worse(child, at, found, scores, ranks):
            return
        found[at], found[child] = found[child], found[at]
        scores[at], scores[child] = scores[child], scores[at]
        at = child


@njit(nogil=True, cache=True)
def _worse(a: int, b: int, found: np.ndarray, scores: np.ndarray, ranks: np.ndarray) -> bool:
    if scores[a] != scores[b]:
        return scores[a] < scores[b]
    if len(ranks):
        return ranks[found[a]] > ranks[found[b]]
    return found[a] > found[b]


@njit(nogil=True, cache=True)
def scores_at(
    terms: np.ndarray, ends: np.ndarray, rows: np.ndarray, weights: np.ndarray, wanted: np.ndarray, scores: np.ndarray
) -> None:
    """Adds to `scores` those of the rows `wanted` for a query of `terms`."""
    for term in terms:
        own = rows[ends[term] : ends[term + 1]]
        for at in range(len(wanted)):
            place = np.searchsorted(own, wanted[at])
            if place < len(own) and own[place] == wanted[at]:
                scores[at] += weights[ends[term] + place]
