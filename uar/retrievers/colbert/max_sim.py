"""MaxSim: the sum over the vectors of a query of the greatest inner product with any vector of a passage."""

import numpy as np
import torch

NOTHING = -1e30  # finite, so that a passage without vectors has a gradient
PRODUCTS = 1 << 25  # inner products held at a time


def max_sim(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    """(queries, passages) fp32. queries: (queries, length, dim + 1), passages: (passages, length, dim + 1); the last number is
    1 at vectors and 0 at what only fills up."""
    there = passages[..., -1] > 0
    flat = passages[..., :-1].flatten(0, 1)
    rows = []
    for query in queries:  # all at once would hold queries x passages x both lengths
        products = (query[:, :-1] @ flat.T).view(len(query), *there.shape).masked_fill(~there, NOTHING)
        rows.append((products.max(dim=2).values * query[:, -1:]).sum(dim=0))
    return torch.stack(rows)


def max_sim_flat(queries: np.ndarray, owners: np.ndarray, tokens: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(queries, passages) fp32 of vectors that lie behind each other. queries: (query vectors, dim); owners: (queries + 1)
    where the vectors of each begin; tokens: (passage vectors, dim); ends: (passages + 1) the same of passages. A passage
    without vectors has the score NOTHING; a query has one vector at least."""
    starts = ends[:-1]
    there = ends[1:] > starts
    scores = np.full((len(owners) - 1, len(starts)), NOTHING, np.float32)
    at_once = max(1, PRODUCTS // max(1, len(tokens)))
    first = 0
    while there.any() and first < len(owners) - 1:
        last = max(first + 1, int(np.searchsorted(owners, owners[first] + at_once, side="right")) - 1)
        own = slice(int(owners[first]), int(owners[last]))
        best = np.maximum.reduceat(queries[own] @ tokens.T, starts[there], axis=1)
        scores[first:last, there] = np.add.reduceat(best, owners[first:last] - owners[first], axis=0)
        first = last
    return scores
