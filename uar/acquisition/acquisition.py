"""What an acquisition is given and what it gives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from uar.collections import Collection, Corpus
from uar.errors import UserError
from uar.storage.ordering import rank_of


class Doubted(Protocol):
    """What an acquisition reads of a judgement of a passage; see `uar.annotation.judgement.Judgement`."""

    @property
    def doc_id(self) -> str: ...

    @property
    def score(self) -> float | None: ...

    @property
    def uncertainty(self) -> float | None: ...

    @property
    def logprobs(self) -> Sequence[float]: ...


Judgements = Mapping[str, Sequence[Doubted]]  # by query id


def _no_judgements() -> Judgements:
    raise UserError(
        "this acquisition needs an LLM's judgements, and there are none here; annotate first (annotate.py takes those of "
        "against=), or use acquire=random"
    )


def no_pools(query_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
    raise UserError("this acquisition needs the queries' candidates, and there are none here; use acquire=random")


@dataclass(frozen=True)
class AcquisitionContext:
    """`query_ids`: those to choose from, with those that are `labelled` already. `judgements`: an LLM's, by query; `pools`:
    the candidates of some queries. Both are functions, since not every acquisition needs them. `collection`: of the texts.
    `wanted`: how far the order is read; what comes after may stand in any order. None: to its end."""

    query_ids: Sequence[str]
    seed: int
    labelled: Set[str] = frozenset()
    judgements: Callable[[], Judgements] = field(default=_no_judgements, repr=False)
    pools: Callable[[Sequence[str]], Mapping[str, Sequence[str]]] = field(default=no_pools, repr=False)
    collection: Collection | None = field(default=None, repr=False)
    wanted: int | None = None

    @property
    def unlabelled(self) -> list[str]:
        return [q for q in self.query_ids if q not in self.labelled]

    @property
    def drawn(self) -> list[str]:
        """The unlabelled queries at random by the seed, whatever their order: an acquisition of its own, and what breaks the
        ties of others."""
        return sorted(self.unlabelled, key=lambda q: rank_of(self.seed, "human", q))


class Acquisition(ABC):
    """Who is labelled next."""

    @abstractmethod
    def order(self, context: AcquisitionContext) -> list[str]:
        """The unlabelled queries, each once, the most wanted first: the first n are a budget of n, so that a smaller budget of
        the same context is part of a larger one. A function of the context alone."""


def distinct(corpus: Corpus, pools: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """By query, the places of its passages, of several with one text that of the first: a copy says nothing of doubt."""
    rows = corpus.find([d for pool in pools.values() for d in pool])
    hashes = iter(np.where(rows < 0, np.arange(len(rows), dtype=np.uint64), corpus.text_hashes[rows]).tolist())
    found = {}
    for query_id, pool in pools.items():
        places: dict[int, int] = {}
        for at, text in enumerate(islice(hashes, len(pool))):
            places.setdefault(text, at)
        found[query_id] = list(places.values())
    return found


def with_rest(query_ids: Sequence[str], picked: Sequence[int]) -> list[str]:
    """The picked ones, by their places, then the others as they stand."""
    first = dict.fromkeys(query_ids[at] for at in picked)
    return [*first, *(q for q in query_ids if q not in first)]
