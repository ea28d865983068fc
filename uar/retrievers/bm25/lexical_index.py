"""BM25 over an inverted index, which is cached by the corpus' content.

What is slow to import, numba and bm25s, is imported where it is used: vLLM's worker processes, importing what the main program
imports, have no need of it.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np

from uar.collections import Corpus
from uar.errors import UserError
from uar.launch.bars import Bar, bar, counted
from uar.machine.workers import Workers, chosen_workers, visible
from uar.retrievers.bm25.postings import Postings, write_postings
from uar.retrievers.bm25.terms import VERSION, numbered, terms_of
from uar.storage.files import cache_dir, digest, is_whole, whole_dir, write_array, write_json
from uar.storage.locks import built_once
from uar.storage.ordering import best_first

log = logging.getLogger(__name__)
FORMAT = 2  # of the files; a new number indexes anew
K1, B = 1.5, 0.75
BLOCK = 4_096  # queries that are kept together
FOUND = ("rows.npy", "scores.npy")
KEPT = "bm25_found"  # folder of the cache
NO_RANKS = np.zeros(0, np.int64)
Found = tuple[np.ndarray, np.ndarray]
Hits = list[tuple[str, float]]


class BM25:
    """Lucene's BM25 over title and text, in the terms of the corpus' language; see `terms`. `key`: of all that scores hang
    on."""

    def __init__(self, folder: Path, corpus: Corpus, k1: float, b: float) -> None:
        self.key = folder.name
        self._postings, self._corpus, self._k1, self._b = Postings.open(folder), corpus, k1, b

    @classmethod
    def open(cls, corpus: Corpus, k1: float = K1, b: float = B) -> "BM25":
        """UserError where `k1` is below 0 or `b` not between 0 and 1."""
        if not (k1 >= 0 and 0 <= b <= 1):
            raise UserError(f"BM25 with k1={k1}, b={b}: k1 from 0 on and b from 0 to 1 are needed")
        folder = corpus.cache / "bm25" / digest(corpus.hash, FORMAT, float(k1), float(b), corpus.language, VERSION)
        return cls(built_once(folder, partial(_build, folder, corpus, k1, b)), corpus, k1, b)

    def search(self, queries: Sequence[str], k: int) -> list[Hits]:
        """(passage id, score) of the k best passages a query, by score, then id. Passages that share no term are left out."""
        return list(self.found(queries, k))

    def found(self, queries: Sequence[str], k: int, keep: bool = False) -> Iterator[Hits]:
        """As `search`, with a block of queries in memory at once. `keep`: what is found stays in the cache, a block at a time,
        which `chosen_workers` look up where there are any."""
        k, nothing = min(k, len(self._corpus)), 0
        blocks = [list(queries[start : start + BLOCK]) for start in range(0, len(queries), BLOCK)]
        workers = chosen_workers()
        if keep and workers:
            self._keep_on(workers, blocks, k)
        with bar("BM25", len(queries), "questions") as shown:
            for asked in blocks:
                for hits in self._hits(*(self._kept(asked, k, shown) if keep else self._best(asked, k, shown))):
                    nothing += not hits
                    yield hits
        if nothing:
            line = "BM25 finds nothing for %d of %d questions, which share no term with any passage (language=%s)"
            log.warning(line, nothing, len(queries), self._corpus.language)

    def scores(self, queries: Sequence[str], rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Scores of the passages in `rows`, an array of corpus rows a query; 0 where a passage shares no term with it."""
        from uar.retrievers.bm25.kernels import scores_at

        found = [np.zeros(len(own), np.float32) for own in rows]
        for terms, own, scores in zip(self._terms(queries), rows, found, strict=True):
            scores_at(terms, *self._arrays, np.asarray(own, np.int64), scores)
        return found

    def _hits(self, rows: np.ndarray, scores: np.ndarray) -> Iterator[Hits]:
        there = rows >= 0
        ids = iter(self._corpus.ids_at(rows[there]))
        for own, values in zip(there, scores.tolist(), strict=True):
            yield best_first(zip(islice(ids, int(own.sum())), values, strict=False))

    def _keep_on(self, workers: Workers, blocks: Sequence[list[str]], k: int) -> None:
        """Let them find what the cache lacks, where that is more than a block."""
        missing = [block for block in blocks if not is_whole(self._folder_of(block, k))]
        if len(missing) < 2:
            return
        opener = partial(_opened, self._corpus.folder.absolute(), self._corpus.language, self._k1, self._b)
        with (
            bar("BM25", sum(map(len, missing)), "questions") as shown,
            workers.opened(opener, len(missing), cache_dir() / KEPT, on_gpu=False) as crew,
        ):
            for number, _ in crew.each(missing, k):
                visible(self._folder_of(missing[number], k) / FOUND[-1])  # what is not seen is found again here
                shown.advance(len(missing[number]))

    def _folder_of(self, queries: Sequence[str], k: int) -> Path:
        return cache_dir() / KEPT / digest(self.key, k, queries)

    def _kept(self, queries: Sequence[str], k: int, shown: Bar) -> Found:
        """As `_best`, from the cache where it is there."""
        folder = self._folder_of(queries, k)

        def find() -> None:
            with whole_dir(folder) as beside:
                for name, array in zip(FOUND, self._best(queries, k, shown), strict=True):
                    write_array(beside / name, array)

        if is_whole(folder):
            shown.advance(len(queries))
            shown.time_from_here()
        built_once(folder, find)
        rows, scores = (np.load(folder / name) for name in FOUND)
        return rows, scores

    def _best(self, queries: Sequence[str], k: int, shown: Bar) -> Found:
        """(rows, scores), both (queries, k), in any order; at the end -1 and 0 where fewer passages share a term."""
        with _threads() as pool:
            found = list(counted(pool.map(partial(self._best_of, k), self._terms(queries)), shown))
        rows, scores = (np.stack(arrays) for arrays in zip(*found, strict=True))
        return rows, scores

    def _best_of(self, k: int, terms: np.ndarray) -> Found:
        """(k,) each, of one query."""
        from uar.retrievers.bm25.kernels import best_rows

        passages = len(self._corpus)
        wide = min(k + 1, passages)  # one more, to see whether a tie goes on past the cut
        rows, scores = np.full(wide, -1, np.int32), np.zeros(wide, np.float32)
        best_rows(terms, *self._arrays, passages, NO_RANKS, rows, scores)
        order = np.argsort(-scores, kind="stable")
        if wide > k and 0 < scores[order[k]] == scores[order[k - 1]]:
            rows, scores = np.full(k, -1, np.int32), np.zeros(k, np.float32)
            best_rows(terms, *self._arrays, passages, self._ranks, rows, scores)
            return rows, scores
        return rows[order[:k]], scores[order[:k]]

    def _terms(self, queries: Sequence[str]) -> list[np.ndarray]:
        return self._postings.numbers(terms_of(queries, self._corpus.language))

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._postings.ends, self._postings.rows, self._postings.weights

    @cached_property
    def _ranks(self) -> np.ndarray:
        return self._corpus.id_ranks()


def _opened(corpus: Path, language: str, k1: float, b: float) -> Callable[[list[str], int], None]:
    """What keeps the best of some queries, in a worker."""
    index = BM25.open(Corpus(corpus).in_language(language), k1, b)

    def keep(queries: list[str], k: int) -> None:
        with bar("BM25", len(queries), "questions") as shown:
            index._kept(queries, k, shown)

    return keep


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """One a core that this process may use; an actor of Ray may use those that Ray tells OpenMP's libraries of."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    pool = ThreadPoolExecutor(min(cores, int(said)) if said.isdecimal() and int(said) else cores)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _build(folder: Path, corpus: Corpus, k1: float, b: float) -> None:
    log.info("Indexing %d passages (language=%s) for BM25 once into %s", len(corpus), corpus.language, folder)
    vocabulary: dict[str, int] = {}
    with whole_dir(folder) as beside, bar("index for BM25", len(corpus), "passages") as shown:
        write_postings(beside, numbered(counted(corpus.texts(), shown), corpus.language, vocabulary), vocabulary, k1, b)
        write_json(beside / "manifest.json", {"corpus": corpus.hash, "passages": len(corpus), "k1": k1, "b": b})
