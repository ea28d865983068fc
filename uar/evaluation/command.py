"""Scores a retriever or a run on collections and writes the run folder: runs, per-query scores, generations, metrics."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import pyarrow as pa
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from uar.annotation.engines import Engine, identity_of
from uar.annotation.store import Store
from uar.answers import exact_match, f1
from uar.collections import Collection
from uar.errors import UserError
from uar.evaluation.measures import MEASURES, means, per_query
from uar.evaluation.metrics_file import update_metrics
from uar.evaluation.rag.generate import generate_answers
from uar.evaluation.runs import Run, write_run
from uar.files import write_table
from uar.retrievers.bi_encoder import BiEncoder
from uar.retrievers.bm25 import BM25
from uar.retrievers.dense import retrieve

log = logging.getLogger(__name__)
Scores = list[tuple[str, str, float]]  # query id, measure, value
Ranker = Callable[[Collection, list[str]], Run]


class Evaluator:
    """`cfg` needs `rag`, `store` and `retrieval_depth`; everything is written to `folder`."""

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self._cfg, self._folder = cfg, folder
        self._engine: Engine | None = None
        self._no_generator = not cfg.rag.llm

    def evaluate(
        self, collections: Sequence[Collection], retriever: "BiEncoder | BM25Ranker | Ranker"
    ) -> dict[str, dict[str, float]]:
        """Mean values by slug, retrieval and RAG together."""
        rank = self._ranker(retriever)
        found: dict[str, dict[str, float]] = {}
        try:
            for collection in collections:
                found[collection.slug] = self._collection(collection, rank)
        finally:
            if self._engine is not None:
                self._engine.close()
        return found

    def _ranker(self, retriever: Any) -> Ranker:
        if not isinstance(retriever, BiEncoder):
            return retriever
        return lambda collection, query_ids: retrieve(retriever, collection, query_ids, self._cfg.retrieval_depth)

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
        run = rank(collection, query_ids)
        seconds = time.perf_counter() - start
        write_run(self._folder / "runs" / f"{collection.slug}.trec", run, "uar")
        scores = per_query(collection, run, MEASURES, query_ids)
        values = means(scores)
        log.info("%s: %s (%d questions, %.1f s)", collection.slug, _told(values), len(query_ids), seconds)
        update_metrics(
            self._folder, retrieval={collection.slug: values}, time={f"retrieval {collection.slug}": round(seconds, 2)}
        )
        rag_scores = self._rag(collection, run, query_ids) if not self._no_generator else []
        _write_scores(self._folder / "scores" / f"{collection.slug}.parquet", scores + rag_scores)
        return {**values, **means(rag_scores)}

    def _rag(self, collection: Collection, run: Run, query_ids: list[str]) -> Scores:
        rag = self._cfg.rag
        answered = collection.answered(query_ids)[: rag.limit]
        if not answered:
            log.info("%s has no gold answers: no RAG scores", collection.reference)
            return []
        if self._engine is None:
            try:
                self._engine = hydra.utils.instantiate(rag.llm, _convert_="all")
            except InstantiationException as error:
                if not isinstance(error.__cause__, UserError):
                    raise
                log.warning("No RAG scores, since the generator is not there: %s", error.__cause__)
                self._no_generator = True
                return []
        start = time.perf_counter()
        store = Store(Path(self._cfg.store))
        try:
            model = identity_of(rag.llm)
            reader = hydra.utils.instantiate(rag.reader)
            texts = generate_answers(collection, run, answered, rag.top_k, reader, self._engine, store, model)
        finally:
            store.close()
        seconds = time.perf_counter() - start
        gold = {q: collection.queries[q].answers for q in answered}
        scores = [(q, name, of(texts[q], gold[q])) for q in answered for name, of in (("EM", exact_match), ("F1", f1))]
        values = means(scores)
        empty = sum(not text for text in texts.values())
        log.info(
            "%s: RAG %s (%d of %d answered questions, top %d, %d empty answers, %.1f s)",
            collection.slug,
            _told(values),
            len(answered),
            len(collection.answered(query_ids)),
            rag.top_k,
            empty,
            seconds,
        )
        shown = {q: [d for d, _ in run.get(q, ())[: rag.top_k]] for q in answered}
        _write_generations(self._folder / "generations" / f"{collection.slug}.parquet", collection, shown, texts)
        update_metrics(
            self._folder,
            rag={collection.slug: {**values, "questions": len(answered)}},
            time={f"rag {collection.slug}": round(seconds, 2)},
        )
        return scores


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


def _write_generations(path: Path, collection: Collection, shown: dict[str, list[str]], texts: dict[str, str]) -> None:
    table = pa.table(
        {
            "query_id": pa.array(list(texts), pa.string()),
            "question": pa.array([collection.queries[q].text for q in texts], pa.string()),
            "gold": pa.array([list(collection.queries[q].answers) for q in texts], pa.list_(pa.string())),
            "doc_ids": pa.array([shown[q] for q in texts], pa.list_(pa.string())),
            "answer": pa.array(list(texts.values()), pa.string()),
        }
    )
    write_table(path, table)
