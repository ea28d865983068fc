"""Several runs made one."""

import math
from collections.abc import Mapping, Sequence

from uar.errors import UserError
from uar.storage.ordering import Hit, best_first
from uar.storage.runs import Run

METHODS = ("rrf", "weighted")
K = 60  # of rrf, as in its paper
Values = Mapping[str, float] | Sequence[float] | float | None


def fuse(
    runs: Sequence[Run], method: str = "rrf", weights: Sequence[float] | None = None, k: int = K, depth: int | None = None
) -> dict[str, list[Hit]]:
    """The queries of all runs with their `depth` best passages by a sum over the runs, each with its weight (1):

    `rrf`: 1 / (k + rank), ranks from 1 (reciprocal rank fusion; Cormack, Clarke and Büttcher, SIGIR 2009).
    `weighted`: the score, set between 0 for the query's lowest and 1 for its highest of that run (1 where all are equal).
    A run that lacks a passage adds 0. Ties fall by passage id, and the order of the runs does not matter.
    """
    if method not in METHODS:
        raise UserError(f"fusion method {method!r} is not known; allowed: {', '.join(METHODS)}")
    if k < 0 or (depth is not None and depth < 1):
        raise UserError(f"k={k}, depth={depth}: k from 0 on and a depth from 1 on are needed")
    shares = [1.0] * len(runs) if weights is None else list(weights)
    if len(shares) != len(runs) or not all(math.isfinite(w) and w >= 0 for w in shares):
        raise UserError(f"weights {shares} of {len(runs)} runs; one number from 0 on is needed for each")
    if shares and not any(shares):
        raise UserError(f"weights {shares}: all passages would have the same score; give one above 0")
    fused = {}
    for query_id in dict.fromkeys(q for run in runs for q in run):
        parts: dict[str, list[float]] = {}
        for run, weight in zip(runs, shares, strict=True):
            hits = run.get(query_id, ())
            for (doc_id, _), value in zip(hits, worth(hits, method, k), strict=True):
                parts.setdefault(doc_id, []).append(weight * value)
        fused[query_id] = best_first((d, math.fsum(values)) for d, values in parts.items())[:depth]
    return fused


def worth(hits: Sequence[Hit], method: str, k: int) -> list[float]:
    """What each of a query's hits adds, before the weight."""
    if method == "rrf":
        return [1 / (k + rank) for rank in range(1, len(hits) + 1)]
    scores = [score for _, score in hits]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def of_each(values: Values, names: Sequence[str], option: str, default: float) -> list[float]:
    """A number for each of `names`, from one for all, a list in their order, or a mapping that may leave some out."""
    if values is None or isinstance(values, int | float):
        return [default if values is None else values] * len(names)
    if isinstance(values, Mapping):
        unknown = next((name for name in values if name not in names), None)
        if unknown is not None:
            raise UserError(f"{option} has {unknown!r}, which is none of {', '.join(names)}")
        return [values.get(name, default) for name in names]
    if len(values) != len(names):
        raise UserError(f"{option} has {len(values)} values for {', '.join(names)}; give one for each, in this order")
    return list(values)
