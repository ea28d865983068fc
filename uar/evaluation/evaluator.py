"""Scores a retriever or a run on collections and writes the run folder: runs, per-query scores, generations, metrics."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import pyarrow as pa
from omegaconf import DictConfig

from uar.collections import Collection
from uar.collections.answer_files import with_answers
from uar.collections.collection_runs import without_own
from uar.collections.presets import averaged
from uar.errors import UserError
from uar.evaluation.measures import means, parsed, per_query
from uar.evaluation.metrics_file import forget_evaluation, update_metrics
from uar.evaluation.rag.opening import Generator, open_rag
from uar.evaluation.rag.query_writing import with_texts
from uar.retrievers.bm25.lexical_index import BM25, K1, B
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.kind import is_bi_encoder
from uar.storage.files import write_table
from uar.storage.manifest import update_manifest
from uar.storage.runs import Run, write_run

if TYPE_CHECKING:
    from uar.retrievers.bi_encoder.encoder import BiEncoder

log = logging.getLogger(__name__)
Scores = list[tuple[str, str, float]]  # query id, measure, value
Ranker = Callable[[Collection, list[str]], Run]


class Evaluator:
    """`cfg` needs `measures`, `rag`, `search`, `store` and `retrieval_depth`; everything is written to `folder`. `answers`:
    those of the dataset, for where `rag.answers` is null. What is wrong with the measures and the options of RAG is told
    here."""

    def __init__(self, cfg: DictConfig, folder: Path, answers: Mapping[str, str] | str | None = None) -> None:
        self._cfg, self._folder, self._answers = cfg, folder, answers
        self.measures = list(parsed(cfg.measures))
        self._generator = Generator(cfg.rag.llm)
        self._rag = open_rag(cfg.rag, self._generator, Path(cfg.store), folder) if cfg.rag.llm else None

    def evaluate(
        self, collections: Sequence[Collection], retriever: "BiEncoder | BM25Ranker | Ranker"
    ) -> dict[str, dict[str, float]]:
        """Mean values by slug, retrieval and RAG together, in place of what the folder held. The parts of a set that counts as
        one (CQADupStack) are one row, its mean, which metrics.json has beside theirs."""
        told_of = {c.slug: c.hash for c in collections}  # before their answers may change
        if self._rag:
            collections = self._answered(collections)
        forget_evaluation(self._folder, told_of)
        update_manifest(self._folder, collections=told_of)
        found: dict[str, dict[str, float]] = {}
        recalls: dict[str, dict[str, float]] = {}
        try:
            with self._ranker(retriever) as (rank, forget, recall):
                for at, collection in enumerate(collections):
                    found[collection.slug] = self._collection(collection, rank)
                    recalls[collection.slug] = dict(recall)
                    if collection.corpus.hash not in {later.corpus.hash for later in collections[at + 1 :]}:
                        forget(collection)
        finally:
            self._generator.close()
        if any(recalls.values()):
            update_manifest(self._folder, search=recalls)
        rows = averaged(found)
        whole = {s: {m: v for m, v in rows[s].items() if m in self.measures} for s in rows if s not in found}
        update_metrics(self._folder, retrieval=whole)
        return rows

    def _answered(self, collections: Sequence[Collection]) -> list[Collection]:
        if self._cfg.rag.answers is not None:
            return with_answers(collections, self._cfg.rag.answers, "rag.answers")
        return with_answers(collections, self._answers, "dataset.answers", of_all=False)

    @contextlib.contextmanager
    def _ranker(self, retriever: Any) -> Iterator[tuple[Ranker, Callable[[Collection], None], Mapping[str, float]]]:
        """The retriever as a function; what to call once a corpus is no longer searched: until then its vectors are there for
        its other collections and for queries that are rewritten; and the recalls of the last search, filled as it goes on.
        Each bi-encoder of a fusion has vectors of its own."""
        if not (is_bi_encoder(retriever) or isinstance(retriever, Fusion)):
            yield retriever, lambda collection: None, {}
            return
        opened = functools.cache(lambda: hydra.utils.instantiate(self._cfg.search, _convert_="all"))  # which imports torch
        recalls: dict[str, float] = {}
        places = functools.cache(lambda: vectors.enter_context(opened().vectors()))
        with contextlib.ExitStack() as vectors:

            def dense(part: str, encoder: "BiEncoder", collection: Collection, query_ids: list[str], depth: int) -> Run:
                from uar.retrievers.bi_encoder.dense import retrieve

                run = retrieve(encoder, collection, query_ids, depth, opened(), places(), part)
                recalls.update({f"{part} {name}".strip(): value for name, value in opened().recalls.items()})
                return run

            def alone(encoder: "BiEncoder", collection: Collection, query_ids: list[str]) -> Run:
                depth = self._cfg.retrieval_depth
                return without_own(collection, dense("", encoder, collection, query_ids, depth + collection.drop_own), depth)

            def forget(collection: Collection) -> None:
                if places.cache_info().currsize:
                    places().forget(collection.corpus)
                    opened().forget(collection.corpus)

            if isinstance(retriever, Fusion):
                yield functools.partial(retriever, dense=dense), forget, recalls
            else:
                yield functools.partial(alone, retriever), forget, recalls

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
        _tell_what_is_missing(collection, run, query_ids)
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

    def __init__(self, depth: int = 1000, k1: float = K1, b: float = B) -> None:
        self._depth, self._k1, self._b = depth, k1, b

    def __call__(self, collection: Collection, query_ids: list[str]) -> Run:
        index = BM25.open(collection.corpus, self._k1, self._b)
        hits = index.search([collection.queries[q].text for q in query_ids], self._depth + collection.drop_own)
        return without_own(collection, dict(zip(query_ids, hits, strict=True)), self._depth)


def _tell_what_is_missing(collection: Collection, run: Run, query_ids: Sequence[str]) -> None:
    without = sum(not run.get(q) for q in query_ids)
    if without:
        log.warning("%s: %d of %d queries have no result and score 0", collection.reference, without, len(query_ids))
    if without < len(query_ids) and not any(collection.corpus.row(d) >= 0 for q in query_ids for d, _ in run.get(q, ())):
        log.warning("%s: no passage of the run is in the corpus; is it a run of this collection?", collection.reference)


def _told(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def _write_scores(path: Path, scores: Scores) -> None:
    columns = zip(("query_id", "measure", "value"), zip(*scores, strict=True), strict=True)
    write_table(path, pa.table({name: pa.array(values) for name, values in columns}))
