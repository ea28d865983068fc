"""Krippendorff's alpha: how far people, of whom each judged some of the passages, agree beyond chance (Krippendorff, Content
Analysis, 2004, chapter 11)."""

from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from uar.annotation.quality.bootstrap import estimates
from uar.annotation.quality.kappa import ratio
from uar.annotation.quality.pairs import Counts


def alpha(values: np.ndarray, ordinal: bool) -> float | None:
    """Of labels or grades (people, passages), NaN where a person did not judge. `ordinal`: grades in an order, whose distance
    counts; else they are names. None where no two people judged a passage, or all values are equal."""
    return alpha_with_interval(values, np.zeros(values.shape[1], np.int64), ordinal, 0, 0)["alpha"]


def alpha_with_interval(values: np.ndarray, query: np.ndarray, ordinal: bool, resamples: int, seed: int) -> dict[str, Any]:
    """`alpha`, and under `intervals` its 95 % interval over questions where it has one. query: (passages,) places of their
    questions."""
    counts = _coincidences(values, query)
    if not counts:
        return {"alpha": None, "intervals": {}}
    return estimates(counts, partial(_alpha, ordinal=ordinal), resamples, seed)


def _coincidences(values: np.ndarray, query: np.ndarray) -> Counts:
    """By `first,second` value, in their order: pairs of judgements by different people of the same passage with these two
    values, each passage counting as often as it was judged; (queries,)."""
    levels = np.unique(values[~np.isnan(values)])
    given = np.stack([(values == level).sum(axis=0) for level in levels]) if len(levels) else np.zeros((0, 0))
    several = given.sum(axis=0) > 1
    if not several.any():
        return {}
    given = given[:, several].astype(float)
    others = given.sum(axis=0) - 1
    _, place = np.unique(query[several], return_inverse=True)
    return {
        f"{c},{k}": np.bincount(place, given[c] * (given[k] - (c == k)) / others)
        for c, k in combinations_with_replacement(range(len(levels)), 2)
    }


def _alpha(sums: Counts, ordinal: bool) -> Counts:
    cells = {tuple(map(int, name.split(","))): np.asarray(value, float) for name, value in sums.items()}
    size = 1 + max(k for _, k in cells)
    pairs = np.stack([np.stack([cells[min(c, k), max(c, k)] for k in range(size)]) for c in range(size)])
    each = pairs.sum(axis=1)
    total = each.sum(axis=0)
    if ordinal:
        middle = np.cumsum(each, axis=0) - each / 2  # how many values lie below, half of the equal ones among them
        distance = (middle[:, None] - middle[None]) ** 2
    else:
        distance = np.broadcast_to(1 - np.eye(size).reshape(size, size, *[1] * total.ndim), pairs.shape)
    observed = (pairs * distance).sum(axis=(0, 1))
    expected = (each[:, None] * each[None] * distance).sum(axis=(0, 1))
    return {"alpha": 1 - (total - 1) * ratio(observed, expected)}
