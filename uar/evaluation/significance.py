"""Is a run better than a baseline? Paired tests over the same queries, corrected over collections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from uar.errors import UserError

PERMUTATIONS = 10_000
Values = Mapping[str, Mapping[str, float]]  # measure -> query id -> value


def read_scores(folder: Path, slug: str) -> Values:
    """Per-query values that a run folder keeps of a collection."""
    path = folder / "scores" / f"{slug}.parquet"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.parquet"))) or "none"
        raise UserError(f"baseline={folder}: it has no scores of {slug} (it has {known}); evaluate it on the same collections")
    values: dict[str, dict[str, float]] = {}
    for row in pq.read_table(path).to_pylist():
        values.setdefault(row["measure"], {})[row["query_id"]] = row["value"]
    return values


def compare(ours: Mapping[str, Values], baseline: Mapping[str, Values], seed: int = 0) -> dict[str, dict[str, Any]]:
    """By slug and measure: difference of the means, its 95 % interval, p of the two-sided paired t-test and of the
    randomisation test (10,000 sign flips), each with Holm's correction over the collections. Only queries that both have."""
    found: dict[str, dict[str, Any]] = {slug: {} for slug in ours}
    for slug, values in ours.items():
        for measure, by_query in values.items():
            other = baseline[slug].get(measure, {})
            shared = [q for q in by_query if q in other]
            if len(shared) > 1:
                pairs = np.array([[by_query[q], other[q]] for q in shared])
                found[slug][measure] = _paired(pairs[:, 0], pairs[:, 1], seed)
    for measure in {m for values in found.values() for m in values}:
        slugs = [s for s in found if measure in found[s]]
        for name in ("p t-test", "p randomisation"):
            for slug, p in zip(slugs, holm([found[s][measure][name] for s in slugs]), strict=True):
                found[slug][measure][f"{name} (Holm)"] = p
    return found


def _paired(ours: np.ndarray, other: np.ndarray, seed: int) -> dict[str, Any]:
    difference = ours - other
    if not difference.any():
        return {"queries": len(ours), "difference": 0.0, "low": 0.0, "high": 0.0, "p t-test": 1.0, "p randomisation": 1.0}
    test = stats.ttest_rel(ours, other)
    interval = test.confidence_interval(0.95)
    flips = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return {
        "queries": len(ours),
        "difference": float(difference.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "p t-test": float(test.pvalue),
        "p randomisation": float(flips.pvalue),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return corrected
