"""Retrieval and re-ranking by one vector a text: tokens from the cache, shards in a folder, exact search or an index."""

from collections.abc import Sequence

import numpy as np

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.retrievers.encode import encode_corpus, encode_many, encode_rows, made_by
from uar.retrievers.encoder_ranker import EncoderRanker
from uar.retrievers.ranker import Pools, rows_of, run_of
from uar.retrievers.session import Session
from uar.retrievers.trainable import Encoder
from uar.storage.files import digest
from uar.storage.ordering import Hit, best_first
from uar.storage.runs import Run


class DenseEncoder(Encoder):
    """An encoder of one vector a text, so that the mean of several vectors of a query is one too."""

    has_first_numbers = True

    def opened(self, session: Session, part: str = "") -> "DenseRanker":
        session.place(self)
        return DenseRanker(self, session, part)


class DenseRanker(EncoderRanker):
    """A `DenseEncoder` in a session."""

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        return self.rank_by_mean([collection], query_ids, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        """A passage of several pools is encoded once."""
        return self.score_by_mean([collection], pools)

    def rank_by_mean(self, wordings: Sequence[Collection], query_ids: Sequence[str], depth: int) -> Run:
        """As `rank`, by the mean of each query's vectors. `wordings`: one collection with other texts of its queries."""
        search, collection = self._session.search, wordings[0]
        self._encoder.check_search(search, collection)
        with self._session.preparing():
            passages = self._encoder.passage_tokens(collection)
            made = made_by(self._encoder, passages, search.precision)
            folder = self._session.vectors.folder(collection.corpus, self._part, digest(made))
            shards = encode_corpus(self._encoder, passages, folder, search.precision, search.encoders, made=made)
        queries = self._encode_queries(wordings, query_ids)
        deep = min(depth + collection.drop_own, len(passages))
        scores, rows = search.best(queries, shards, deep, collection.corpus.id_ranks, self._encoder.unit)
        self._session.note(self._part, search.facts)
        return without_own(collection, run_of(collection, query_ids, scores, rows), depth)

    def score_by_mean(self, wordings: Sequence[Collection], pools: Pools) -> Run:
        """As `score`, by the mean of each query's vectors."""
        collection = wordings[0]
        rows = rows_of(collection, pools)
        used = np.unique(np.concatenate([np.zeros(0, np.int64), *rows.values()]))
        if not len(used):
            return {q: [] for q in pools}
        passages = encode_many(self._encoder, self._encoder.passage_tokens(collection), used, self._session.search.precision)
        run: dict[str, list[Hit]] = {}
        for vector, (query_id, pool) in zip(self._encode_queries(wordings, list(pools)), pools.items(), strict=True):
            scores = passages[np.searchsorted(used, rows[query_id])].astype(np.float32) @ vector
            run[query_id] = best_first(zip(pool, scores.tolist(), strict=True))
        return run

    def _encode_queries(self, wordings: Sequence[Collection], query_ids: Sequence[str]) -> np.ndarray:
        found = []
        for collection in wordings:
            rows = [collection.query_rows[q] for q in query_ids]
            tokens = self._encoder.query_tokens(collection)
            found.append(encode_rows(self._encoder, tokens, rows, self._session.search.precision, role="query"))
        if len(found) == 1:
            return found[0]
        mean: np.ndarray = np.mean(found, axis=0)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True) if self._encoder.unit else mean
