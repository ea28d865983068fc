"""Values of measures with their intervals by percentile bootstrap over queries."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from uar.annotation.quality.pairs import Counts

BLOCK = 4_000_000  # draws held at a time: 32 MB


def estimates(counts: Counts, measure: Callable[[Counts], Counts], resamples: int, seed: int) -> dict[str, Any]:
    """The value of each measure, None where it is NaN, and under `intervals` the 95 % intervals of those that have one; for
    the arguments see `intervals`."""
    found = measure({name: values.sum() for name, values in counts.items()})
    values = {name: None if np.isnan(value) else float(value) for name, value in found.items()}
    bounds = intervals(counts, measure, resamples, seed)
    return {**values, "intervals": {name: bound for name, bound in bounds.items() if values[name] is not None}}


def intervals(
    counts: Mapping[str, np.ndarray],
    measure: Callable[[Counts], Counts],
    resamples: int,
    seed: int,
    percentiles: tuple[float, float] = (2.5, 97.5),
) -> dict[str, list[float]]:
    """Intervals [low, high], of 95 % unless `percentiles` says otherwise, of measures that are functions of sums over queries
    (Efron's percentile method: queries, not pairs, are drawn with replacement, since the pairs of a query are not
    independent).

    `counts`: by name, (queries,). `measure`: sums by name, each of (resamples,) -> values by name, each of (resamples,).
    Resamples where a measure is NaN are left out; a measure that is NaN in all of them, or fewer than two queries, gives
    no interval. The order of the queries does not matter.
    """
    rows = np.stack([np.asarray(values, float) for values in counts.values()], axis=1)
    if len(rows) < 2:
        return {}
    # Queries with equal counts are one category of a multinomial draw: as exact, and fast where queries are many.
    distinct, repeats = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // len(distinct))
    sums = np.concatenate(
        [
            rng.multinomial(len(rows), repeats / len(rows), size=min(step, resamples - start)).astype(float) @ distinct
            for start in range(0, resamples, step)
        ]
    )
    found = measure(dict(zip(counts, sums.T, strict=True)))
    defined = {name: values[~np.isnan(values)] for name, values in found.items()}
    return {name: np.percentile(values, percentiles).tolist() for name, values in defined.items() if len(values)}
