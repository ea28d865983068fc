"""Pools ranked by BM25."""

from collections.abc import Sequence
from dataclasses import dataclass

from uar.collections import Collection
from uar.pools.pool_source import PoolSource
from uar.retrievers.bm25.lexical_index import BM25, K1, B


@dataclass(frozen=True)
class BM25Pool(PoolSource):
    """The `depth` best passages by BM25 over title and text."""

    k1: float = K1
    b: float = B

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        index = BM25.open(collection.corpus, self.k1, self.b)
        hits = index.found([collection.queries[q].text for q in query_ids], self.depth, keep=True)
        return {q: [d for d, _ in found] for q, found in zip(query_ids, hits, strict=True)}
