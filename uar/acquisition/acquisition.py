"""What an acquisition is given and what it gives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from uar.annotation.annotators import Judgement
from uar.errors import UserError
from uar.storage.ordering import rank_of


def _no_judgements() -> Mapping[str, Sequence[Judgement]]:
    raise UserError(
        "this acquisition needs an LLM's judgements, and there are none here; annotate first, or use acquire=random"
    )


def _no_vectors() -> np.ndarray:
    raise UserError("this acquisition needs the queries' vectors, and there are none here; use acquire=random or uncertainty")


@dataclass(frozen=True)
class AcquisitionContext:
    """`labelled`: queries that have their labels already. `judgements`: the LLM's, by query; `vectors`: (queries, dim), row by
    row those of `query_ids`. Both are functions, since not every acquisition needs them."""

    query_ids: Sequence[str]
    seed: int
    labelled: Set[str] = frozenset()
    judgements: Callable[[], Mapping[str, Sequence[Judgement]]] = field(default=_no_judgements, repr=False)
    vectors: Callable[[], np.ndarray] = field(default=_no_vectors, repr=False)

    @property
    def unlabelled(self) -> list[str]:
        return [q for q in self.query_ids if q not in self.labelled]


class Acquisition(ABC):
    """Who is labelled next."""

    @abstractmethod
    def order(self, context: AcquisitionContext) -> list[str]:
        """The unlabelled queries, each once, the most wanted first: the first n are a budget of n, so that a smaller budget of
        the same context is part of a larger one. A function of the context alone, on any machine."""


def drawn(context: AcquisitionContext, query_id: str) -> bytes:
    """A sort key that draws a query at random by the seed: an acquisition of its own, and what breaks the ties of others."""
    return rank_of(context.seed, "human", query_id)
