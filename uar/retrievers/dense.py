"""Retrieval with a bi-encoder: tokens from the cache, shards in a folder, exact search."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from uar.collections import Collection
from uar.collections.tokens import corpus_tokens, query_tokens
from uar.retrievers.bi_encoder import BiEncoder
from uar.retrievers.encode import encode_corpus, encode_rows
from uar.retrievers.search import search


def retrieve(
    retriever: BiEncoder,
    collection: Collection,
    query_ids: Sequence[str],
    k: int,
    shards: Path | None = None,
    precision: str = "auto",
) -> dict[str, list[tuple[str, float]]]:
    """(passage id, score) of the k best passages a query. `shards`: a folder to keep the embeddings in and to go on from;
    without it they live in a temporary one."""
    passages = corpus_tokens(collection, retriever.tokenizer, retriever.passage_length, retriever.passage_prefix)
    queries = query_tokens(collection, retriever.tokenizer, retriever.query_length, retriever.query_prefix)
    row_of = {q: row for row, q in enumerate(collection.queries)}
    folder = shards or Path(tempfile.mkdtemp(prefix="uar-shards-"))
    try:
        vectors = encode_rows(retriever, queries, [row_of[q] for q in query_ids], precision)
        scores, rows = search(vectors, encode_corpus(retriever, passages, folder, precision), min(k, len(passages)))
    finally:
        if shards is None:
            shutil.rmtree(folder, ignore_errors=True)
    run = {}
    for query_id, score, row in zip(query_ids, scores, rows, strict=True):
        hits = [(collection.corpus.id(int(r)), float(s)) for s, r in zip(score, row, strict=True) if r >= 0]
        run[query_id] = sorted(hits, key=lambda hit: (-hit[1], hit[0]))
    return run
