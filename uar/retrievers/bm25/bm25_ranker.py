"""BM25 as a ranker."""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.retrievers.bm25.lexical_index import BM25, K1, B
from uar.retrievers.bm25.terms import VERSION
from uar.retrievers.ranker import Pools, Ranker, rows_of
from uar.retrievers.session import Session
from uar.storage.files import digest
from uar.storage.ordering import best_first
from uar.storage.runs import Run


class BM25Ranker(Ranker):
    """What `retriever=bm25` instantiates. A passage that shares no word with a query is not ranked, and has the score 0."""

    def __init__(self, k1: float = K1, b: float = B) -> None:
        self._k1, self._b = k1, b
        self.name = f"bm25(k1={k1}, b={b})"
        self._session: Session | None = None

    def key(self, collection: Collection) -> str:
        return digest("bm25", self._k1, self._b, collection.corpus.language, VERSION)

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        hits = self._index(collection).search(_texts(collection, query_ids), depth + collection.drop_own)
        run = dict(zip(query_ids, hits, strict=True))
        return without_own(collection, run, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        scores = self._index(collection).scores(_texts(collection, list(pools)), list(rows_of(collection, pools).values()))
        return {
            q: best_first(zip(pool, own.tolist(), strict=True)) for (q, pool), own in zip(pools.items(), scores, strict=True)
        }

    def opened(self, session: Session, part: str = "") -> "BM25Ranker":
        ranker = copy(self)
        ranker._session = session
        return ranker

    def _index(self, collection: Collection) -> BM25:
        with self._session.preparing() if self._session else nullcontext():
            return BM25.open(collection.corpus, self._k1, self._b)


def _texts(collection: Collection, query_ids: Sequence[str]) -> list[str]:
    return [collection.queries[q].text for q in query_ids]
