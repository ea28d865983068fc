"""Queries that cover all others (core-set, k-centre greedy: Sener and Savarese, arXiv 1708.00489)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from uar.acquisition.acquisition import Acquisition, AcquisitionContext, with_rest
from uar.acquisition.query_vectors import query_vectors

if TYPE_CHECKING:
    from uar.retrievers.ranker import Ranker

FIELD = 2_048  # queries that are compared with a pick at once
TIE = 1e-6  # cosines that differ by less are equal, as far as fp32 tells


@dataclass(frozen=True)
class CoreSetAcquisition(Acquisition):
    """Greedy: each pick is the query that is furthest, by cosine, from the nearest one that is labelled or was picked. Where
    nothing is labelled, the first is drawn. `retriever` makes the vectors."""

    retriever: "Callable[[], Ranker]" = field(repr=False)

    def order(self, context: AcquisitionContext) -> list[str]:
        query_ids = context.drawn
        labelled = [q for q in context.query_ids if q in context.labelled]
        vectors = query_vectors(self.retriever, context, [*query_ids, *labelled])
        picked = core_set(vectors[: len(query_ids)], vectors[len(query_ids) :], context.wanted)
        return with_rest(query_ids, picked)


def core_set(vectors: np.ndarray, labelled: np.ndarray, wanted: int | None = None) -> list[int]:
    """Rows of `vectors` (unlabelled, dim), of length 1, in the order picked, `wanted` of them or all; of equals the first.
    `labelled`: (labelled, dim).

    A query only comes nearer to what was picked. So `near`, its cosine to the nearest, may be out of date: those that seem
    furthest are brought up to date together, in one matrix product, and picked from for as long as they are furthest.
    """
    wanted = len(vectors) if wanted is None else min(wanted, len(vectors))
    near, seen = np.full(len(vectors), -np.inf, np.float32), np.zeros(len(vectors), np.int64)  # seen: picks that near knows
    for at in range(0, len(labelled), FIELD):
        np.maximum(near, (vectors @ labelled[at : at + FIELD].T).max(axis=1), out=near)
    centres = np.empty((wanted, vectors.shape[1]), vectors.dtype)
    found: list[int] = []
    while len(found) < wanted:
        places = np.argsort(near, kind="stable")
        furthest, behind = np.sort(places[:FIELD]), near[places[FIELD]] if len(places) > FIELD else np.inf
        inside, own = vectors[furthest], near[furthest]
        _catch_up(inside, own, seen[furthest], centres[: len(found)])
        while len(found) < wanted:
            least = own.min()
            if least > behind or least == np.inf:
                break
            at = int(np.argmax(own <= least + TIE))
            centres[len(found)] = inside[at]
            found.append(int(furthest[at]))
            np.maximum(own, inside @ inside[at], out=own)
            own[at] = np.inf
        near[furthest], seen[furthest] = own, len(found)
    return found


def _catch_up(vectors: np.ndarray, near: np.ndarray, seen: np.ndarray, centres: np.ndarray) -> None:
    """Bring `near` up to date in place: only rows that have seen less take part in the products of earlier centres."""
    edges = np.unique(np.append(seen, len(centres)))
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        late = np.flatnonzero(seen <= first)
        near[late] = np.maximum(near[late], (vectors[late] @ centres[first:last].T).max(axis=1))
