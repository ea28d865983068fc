"""Retrieval and re-ranking with a bi-encoder: tokens from the cache, shards in a folder, exact search."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from uar.collections import Collection
from uar.ranking import Hit, best_first
from uar.retrievers.bi_encoder import BiEncoder
from uar.retrievers.encode import encode_corpus, encode_many, encode_rows
from uar.retrievers.index import ExactSearch


def retrieve(
    retriever: BiEncoder,
    collection: Collection,
    query_ids: Sequence[str],
    k: int,
    precision: str = "auto",
    search: ExactSearch | None = None,
) -> dict[str, list[Hit]]:
    """(passage id, score) of the k best passages a query. Where `search` keeps no embeddings they live in a temporary
    folder."""
    search = search or ExactSearch()
    kept = search.folder(collection.corpus)
    folder = kept or Path(tempfile.mkdtemp(prefix="uar-shards-"))
    passages = retriever.passage_tokens(collection)
    try:
        vectors = _encode_queries(retriever, collection, query_ids, precision)
        parts = encode_corpus(retriever, passages, folder, precision, search.processes)
        scores, rows = search.best(vectors, parts, min(k, len(passages)))
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)
    run = {}
    for query_id, score, row in zip(query_ids, scores, rows, strict=True):
        run[query_id] = best_first((collection.corpus.id(int(r)), float(s)) for s, r in zip(score, row, strict=True) if r >= 0)
    return run


def rerank(
    retriever: BiEncoder, collection: Collection, pools: Mapping[str, Sequence[str]], precision: str = "auto"
) -> dict[str, list[Hit]]:
    """The passages of each query's pool in the retriever's order. A passage of several pools is encoded once."""
    rows_of = {q: np.array(collection.corpus.rows(pool), dtype=np.int64) for q, pool in pools.items()}
    known = np.unique(np.concatenate(list(rows_of.values())))
    passages = encode_many(retriever, retriever.passage_tokens(collection), known, precision)
    queries = _encode_queries(retriever, collection, list(pools), precision)
    run = {}
    for vector, (query_id, pool) in zip(queries, pools.items(), strict=True):
        scores = passages[np.searchsorted(known, rows_of[query_id])].astype(np.float32) @ vector
        run[query_id] = best_first(zip(pool, scores.tolist(), strict=True))
    return run


def _encode_queries(retriever: BiEncoder, collection: Collection, query_ids: Sequence[str], precision: str) -> np.ndarray:
    rows = [collection.query_rows[q] for q in query_ids]
    return encode_rows(retriever, retriever.query_tokens(collection), rows, precision, role="query")
