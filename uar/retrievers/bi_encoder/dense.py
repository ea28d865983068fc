"""Retrieval and re-ranking with a bi-encoder: tokens from the cache, shards in a folder, exact search."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from uar.collections import Collection
from uar.errors import UserError
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.encode import encode_corpus, encode_many, encode_rows, made_by
from uar.retrievers.vector_index import ExactSearch
from uar.retrievers.vectors import Vectors
from uar.storage.files import digest
from uar.storage.ordering import Hit, best_first


def retrieve(
    retriever: BiEncoder,
    collection: Collection,
    query_ids: Sequence[str],
    k: int,
    search: ExactSearch | None = None,
    vectors: Vectors | None = None,
    part: str = "",
) -> dict[str, list[Hit]]:
    """(passage id, score) of the k best passages a query. `vectors`: where those of the corpus lie, for this call alone where
    it is None; `part`: see `Vectors`."""
    search = search or ExactSearch()
    search.check(len(collection.corpus), retriever.dim)
    precision = search.precision
    passages = retriever.passage_tokens(collection)
    with ExitStack() as stack:
        places = vectors or stack.enter_context(search.vectors())
        made = made_by(retriever, passages, precision)
        folder = places.folder(collection.corpus, part, digest(made))
        queries = _encode_queries(retriever, collection, query_ids, precision)
        shards = encode_corpus(retriever, passages, folder, precision, search.processes, made=made)
        scores, rows = search.best(queries, shards, min(k, len(passages)))
    run = {}
    for query_id, score, row in zip(query_ids, scores, rows, strict=True):
        run[query_id] = best_first((collection.corpus.id(int(r)), float(s)) for s, r in zip(score, row, strict=True) if r >= 0)
    return run


def rerank(
    retriever: BiEncoder,
    collection: Collection,
    pools: Mapping[str, Sequence[str]],
    precision: str = "auto",
    source: str = "its pool",
) -> dict[str, list[Hit]]:
    """The passages of each query's pool in the retriever's order. A passage of several pools is encoded once. UserError for
    one that the corpus lacks; `source` is what it calls that which named the passage."""
    rows_of = {q: np.array([collection.corpus.row(d) for d in pool], dtype=np.int64) for q, pool in pools.items()}
    for query_id, rows in rows_of.items():
        if (rows < 0).any():
            lost = pools[query_id][int(np.argmax(rows < 0))]
            raise UserError(
                f"{collection.reference}: passage {lost!r} of query {query_id!r} in {source} is not in the corpus; "
                "remove it, or give a run of this corpus"
            )
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
