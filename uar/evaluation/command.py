"""Scores a retriever or a run on collections and writes the run folder: runs, per-query scores, generations, metrics."""

import contextlib
import functools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import pyarrow as pa
from omegaconf import DictConfig

from uar.collections import Collection
from uar.errors import UserError
from uar.evaluation.measures import means, parsed, per_query
from uar.evaluation.metrics_file import update_metrics
from uar.evaluation.rag.answer_files import with_answers
from uar.evaluation.rag.opening import Generator, open_rag
from uar.evaluation.rag.search import with_texts
from uar.files import write_table
from uar.retrievers.bm25 import BM25
from uar.retrievers.fusion import Fusion
from uar.retrievers.kind import is_bi_encoder
from uar.runs import Run, without_own, write_run

if TYPE_CHECKING:
    from uar.retrievers.bi_encoder import BiEncoder

log = logging.getLogger(__name__)
Scores = list[tuple[str, str, float]]  # query id, measure, value
Ranker = Callable[[Collection, list[str]], Run]


class Evaluator:
    """`cfg` needs `measures`, `rag`, `search`, `store` and `retrieval_depth`; everything is written to `folder`. What is wrong
    with the measures and the options of RAG is told here."""

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self._cfg, self._folder = cfg, folder
        self.measures = list(parsed(cfg.measures))
        self._generator = Generator(cfg.rag.llm)
        self._rag = open_rag(cfg.rag, self._generator, Path(cfg.store), folder) if cfg.rag.llm else None

    def evaluate(
        self, collections: Sequence[Collection], retriever: "BiEncoder | BM25Ranker | Ranker"
    ) -> dict[str, dict[str, float]]:
        """Mean values by slug, retrieval and RAG together."""
        if self._rag:
            collections = with_answers(collections, self._cfg.rag.answers)
        found: dict[str, dict[str, float]] = {}
        try:
            with self._ranker(retriever) as (rank, forget):
                for at, collection in enumerate(collections):
                    found[collection.slug] = self._collection(collection, rank)
                    if collection.corpus.hash not in {later.corpus.hash for later in collections[at + 1 :]}:
                        forget(collection)
        finally:
            self._generator.close()
        return found

    @contextlib.contextmanager
    def _ranker(self, retriever: Any) -> Iterator[tuple[Ranker, Callable[[Collection], None]]]:
        """The retriever as a function, and what to call once a corpus is no longer searched: until then its vectors are there
        for its other collections and for queries that are rewritten. Each bi-encoder of a fusion has a folder of its own."""
        if not (is_bi_encoder(retriever) or isinstance(retriever, Fusion)):
            yield retriever, lambda collection: None
            return
        opened = functools.cache(lambda: hydra.utils.instantiate(self._cfg.search, _convert_="all"))  # which imports torch
        with tempfile.TemporaryDirectory(prefix="uar-shards-") as place:

            def dense(part: str, encoder: "BiEncoder", collection: Collection, query_ids: list[str], depth: int) -> Run:
                from uar.retrievers.dense import retrieve

                search = opened()
                own = replace(search, embeddings=str(Path(search.embeddings or place) / part))
                return retrieve(encoder, collection, query_ids, depth, search=own)

            def forget(collection: Collection) -> None:
                for folder in list(Path(place).rglob(collection.corpus.hash)):
                    shutil.rmtree(folder, ignore_errors=True)

            if is_bi_encoder(retriever):
                yield lambda c, query_ids: dense("", retriever, c, query_ids, self._cfg.retrieval_depth), forget
            else:
                yield functools.partial(retriever, dense=dense), forget

    def _collection(self, collection: Collection, rank: Ranker) -> dict[str, float]:
        query_ids = [q for q in collection.queries if collection.positives(q)]
        if not query_ids:
            raise UserError(f"{collection.reference}: no question with a positive judgement, so there is nothing to score")
        if len(query_ids) < len(collection.queries):
            log.info(
                "%s: %d of %d questions have no positive and are left out",
                collection.reference,
                len(collection.queries) - len(query_ids),
                len(collection.queries),
            )
        start = time.perf_counter()
        run = without_own(collection, rank(collection, query_ids))
        seconds = time.perf_counter() - start
        write_run(self._folder / "runs" / f"{collection.slug}.trec", run, "uar")
        scores = per_query(collection, run, self.measures, query_ids)
        values = means(scores)
        log.info("%s: %s (%d questions, %.1f s)", collection.slug, _told(values), len(query_ids), seconds)
        update_metrics(
            self._folder, retrieval={collection.slug: values}, time={f"retrieval {collection.slug}": round(seconds, 2)}
        )
        rag_scores, rag_values = self._rag_scores(collection, run, query_ids, rank)
        _write_scores(self._folder / "scores" / f"{collection.slug}.parquet", scores + rag_scores)
        return {**values, **rag_values}

    def _rag_scores(
        self, collection: Collection, run: Run, query_ids: list[str], rank: Ranker
    ) -> tuple[Scores, dict[str, float]]:
        if self._rag is None:
            return [], {}

        def search(texts: Mapping[str, str]) -> Run:
            return rank(with_texts(collection, texts), list(texts))

        return self._rag.score(collection, run, query_ids, search)


class BM25Ranker:
    """BM25 as a ranker; what `retriever=bm25` instantiates."""

    def __init__(self, depth: int = 1000) -> None:
        self._depth = depth

    def __call__(self, collection: Collection, query_ids: list[str]) -> Run:
        hits = BM25.open(collection.corpus).search([collection.queries[q].text for q in query_ids], self._depth)
        return dict(zip(query_ids, hits, strict=True))


def _told(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def _write_scores(path: Path, scores: Scores) -> None:
    columns = zip(("query_id", "measure", "value"), zip(*scores, strict=True), strict=True)
    write_table(path, pa.table({name: pa.array(values) for name, values in columns}))
