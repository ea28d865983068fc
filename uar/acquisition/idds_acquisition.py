"""Queries that stand for many others and are unlike those that are labelled (IDDS, arXiv 2301.03252)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from uar.acquisition.acquisition import Acquisition, AcquisitionContext, with_rest
from uar.acquisition.query_vectors import query_vectors
from uar.errors import UserError

if TYPE_CHECKING:
    from uar.retrievers.ranker import Ranker

FIELD = 1_024  # queries that are scored a pick, to begin with
TIE = 1e-7  # scores that differ by less are equal, as far as fp32 tells


@dataclass(frozen=True)
class IDDSAcquisition(Acquisition):
    """Greedy: each pick is the x with the highest `weight` · (mean cosine to the other unlabelled queries) − (1 − `weight`) ·
    (mean cosine to the labelled ones), and counts as labelled from then on. `retriever` makes the vectors."""

    retriever: "Callable[[], Ranker]" = field(repr=False)
    weight: float = 0.667

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UserError(f"acquire.weight={self.weight}: a share from 0 to 1 is needed, such as 0.667")

    def order(self, context: AcquisitionContext) -> list[str]:
        query_ids = context.drawn
        labelled = [q for q in context.query_ids if q in context.labelled]
        vectors = query_vectors(self.retriever, context, [*query_ids, *labelled])
        picked = idds(vectors[: len(query_ids)], vectors[len(query_ids) :], self.weight, context.wanted)
        return with_rest(query_ids, picked)


def idds(vectors: np.ndarray, labelled: np.ndarray, weight: float, wanted: int | None = None) -> list[int]:
    """Rows of `vectors` (unlabelled, dim) in the order picked, `wanted` of them or all; of equals the first. `labelled`:
    (labelled, dim).

    Both means are one vector each, so the score of x is an inner product x · w less the share that x itself has in the first.
    A pick moves w a little. So all are scored now and then, and of those that were best then (the field) one is picked for as
    long as it is ahead of all others wherever they are by now, which by Cauchy and Schwarz is no further than w has moved.
    """
    rows = np.hstack([vectors, np.einsum("ij,ij->i", vectors, vectors)[:, None]])
    longest = float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max(initial=0)))
    others, known = vectors.sum(axis=0, dtype=np.float64), labelled.sum(axis=0, dtype=np.float64)
    gone, found, size = np.zeros(len(rows), bool), list[int](), FIELD
    wanted = len(rows) if wanted is None else min(wanted, len(rows))

    def direction() -> np.ndarray:
        left, done = max(len(rows) - len(found) - 1, 1), max(len(labelled) + len(found), 1)
        return np.append(weight * others / left - (1 - weight) * known / done, -weight / left).astype(vectors.dtype)

    while len(found) < wanted:
        start, before = direction(), len(found)
        field, behind = _best(np.where(gone, -np.inf, rows @ start), size)
        inside, left = rows[field], ~gone[field]
        while len(found) < wanted:
            now = direction()
            scores = np.where(left, inside @ now, -np.inf)
            if (best := scores.max()) == -np.inf or best < behind + longest * float(np.linalg.norm(now - start)):
                break
            at = int(np.argmax(scores >= best - TIE))
            left[at], gone[field[at]] = False, True
            found.append(int(field[at]))
            others, known = others - inside[at, :-1], known + inside[at, :-1]
        size = max(size // 2, 256) if 8 * (len(found) - before) > size else min(2 * size, 16 * FIELD)
    return found


def _best(scores: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """Places of the best scores, in their order, of equals the first, and the best of the other scores."""
    if len(scores) <= number:
        return np.arange(len(scores)), -np.inf
    behind, least = np.partition(scores, (-number - 1, -number))[[-number - 1, -number]]
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, equal[: number - len(above)]])), float(behind)
