"""Pools ranked by a retriever."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from uar.collections import Collection
from uar.pools.pool_source import PoolSource
from uar.retrievers.ranker import Ranker


@dataclass(frozen=True, kw_only=True)
class DensePool(PoolSource):
    """The `depth` best passages by `retriever`, such as a bi-encoder, which is loaded when pools are asked for."""

    retriever: Callable[[], Ranker]

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        run = self.retriever().rank(collection, query_ids, self.depth)
        return {q: [d for d, _ in hits] for q, hits in run.items()}

    def ranked_by(self, retriever: Ranker) -> PoolSource:
        return replace(self, retriever=lambda: retriever)
