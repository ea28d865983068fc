"""Retrieval and re-ranking by sparse vectors, in a session."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, vstack

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.collections.token_ids import Tokens
from uar.launch.bars import bar
from uar.retrievers.encode import encode_rows, made_by
from uar.retrievers.encoder_ranker import EncoderRanker
from uar.retrievers.impact_search import count_impacts, save_impacts, search_impacts
from uar.retrievers.pool_blocks import pool_blocks
from uar.retrievers.ranker import Pools, rows_of, run_of
from uar.retrievers.session import Session
from uar.retrievers.shard_folder import by_length, encoding, filling, rows_of_shard
from uar.retrievers.trainable import Encoder
from uar.storage.files import digest
from uar.storage.ordering import best_first
from uar.storage.runs import Run

log = logging.getLogger(__name__)
SHARD = 4_096  # passages a file
AT_ONCE = 128  # texts whose whole vectors are held


def sparse_vectors(
    encoder: Encoder, tokens: Tokens, rows: np.ndarray, precision: str, role: str = "passage", most: int | None = None
) -> csr_matrix:
    """(rows, vocabulary) fp32 of some texts. `most`: the so many greatest numbers of each; None is all."""
    parts, order = [csr_matrix((0, encoder.dim), dtype=np.float32)], [np.zeros(0, np.int64)]
    for places in by_length(tokens.lengths(rows), AT_ONCE) if len(rows) else ():
        vectors = encode_rows(encoder, tokens, [int(row) for row in rows[places]], precision, role)
        if most is not None and most < vectors.shape[1]:
            small = np.argpartition(-vectors, most, axis=1)[:, most:]
            np.put_along_axis(vectors, small, 0, axis=1)
        parts.append(csr_matrix(vectors))
        order.append(places)
    return vstack(parts, format="csr")[np.argsort(np.concatenate(order))]


class SparseRanker(EncoderRanker):
    """An encoder of sparse vectors, compared by inner product. `most`: see `sparse_vectors`."""

    def __init__(self, encoder: Encoder, most: int | None, session: Session, part: str = "") -> None:
        super().__init__(encoder, session, part)
        self._most = most

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        search, corpus = self._session.search, collection.corpus
        self._encoder.check_search(search, collection)
        search.warn_of_processes(self.name)
        with self._session.preparing():
            shards = self._shards(collection)
        queries = self._queries(collection, query_ids)
        self._tell(collection, queries, shards)
        deep = min(depth + collection.drop_own, len(corpus))
        found = search_impacts(queries, shards, deep, corpus.id_ranks)
        return without_own(collection, run_of(collection, query_ids, *found), depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        """A passage of several pools is encoded once."""
        rows = rows_of(collection, pools)
        queries, number = self._queries(collection, list(pools)), {q: at for at, q in enumerate(pools)}
        scores = {q: np.zeros(len(own)) for q, own in rows.items()}
        tokens = self._encoder.passage_tokens(collection)
        with bar("encode passages", None, "passages") as shown:
            for block, shared in pool_blocks(rows, AT_ONCE):
                passages = self._vectors(tokens, block)
                for query_id, at, places in shared:
                    product = queries[number[query_id]] @ passages[places].T
                    scores[query_id][at] = product.toarray()[0]
                shown.advance(len(block))
        return {q: best_first(zip(pool, scores[q].tolist(), strict=True)) for q, pool in pools.items()}

    def _queries(self, collection: Collection, query_ids: Sequence[str]) -> csr_matrix:
        rows = np.array([collection.query_rows[q] for q in query_ids], np.int64)
        tokens = self._encoder.query_tokens(collection)
        return sparse_vectors(self._encoder, tokens, rows, self._session.search.precision, "query").astype(np.float64)

    def _vectors(self, tokens: Tokens, rows: np.ndarray) -> csr_matrix:
        return sparse_vectors(self._encoder, tokens, rows, self._session.search.precision, most=self._most)

    def _shards(self, collection: Collection) -> list[Path]:
        """Files of the corpus' vectors: int32 places and fp16 weights of the numbers that are not 0."""
        tokens = self._encoder.passage_tokens(collection)
        made = {**made_by(self._encoder, tokens, self._session.search.precision, SHARD), "most": self._most}
        folder = self._session.vectors.folder(collection.corpus, self._part, digest("sparse", made))
        shards = [folder / f"shard-{number:05d}.npz" for number in range(-(-len(tokens) // SHARD))]
        with filling(folder, made, [[shard] for shard in shards], "Indexing") as missing:
            rows = {number: rows_of_shard(number, SHARD, len(tokens)) for number in missing}
            with encoding(sum(map(len, rows.values())), "Indexed") as shown:
                for number, own in rows.items():
                    save_impacts(shards[number], self._vectors(tokens, own), np.float16)
                    shown.advance(len(own))
        return shards

    def _tell(self, collection: Collection, queries: csr_matrix, shards: Sequence[Path]) -> None:
        """Bytes of a passage, and how many numbers of passages and of queries are not 0."""
        passages, size = len(collection.corpus), sum(path.stat().st_size for path in shards)
        facts = {
            "bytes_per_passage": size / passages,
            "nonzeros_per_passage": count_impacts(shards) / passages,
            "nonzeros_per_query": queries.nnz / max(1, queries.shape[0]),
        }
        self._session.note(self._part, {name: round(value, 1) for name, value in facts.items()})
        log.info(
            "Index of %s: %.0f bytes a passage, %.1f MiB; numbers that are not 0: %.1f a passage, %.1f a query",
            self.name, facts["bytes_per_passage"], size / 2**20, facts["nonzeros_per_passage"], facts["nonzeros_per_query"],
        )  # fmt: skip
