"""BM25 through bm25s, its index cached by the corpus' content.

bm25s is imported where it is used: it brings numba, which is slow to import and of which vLLM's worker processes, importing
what the main program imports, have no need.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uar.collections import Corpus
from uar.errors import UserError
from uar.launch.bars import bar, counted
from uar.retrievers.bm25.terms import VERSION, indexed, terms_of
from uar.storage.files import cache_dir, digest, is_whole, whole_dir, write_json
from uar.storage.ordering import best_first

log = logging.getLogger(__name__)
BLOCK = 1_024  # queries scored at once
K1, B = 1.5, 0.75


class BM25:
    """Lucene's BM25 over title and text, in the terms of the corpus' language; see `terms`."""

    def __init__(self, index: Any, corpus: Corpus) -> None:
        self._index = index
        self._corpus = corpus

    @classmethod
    def open(cls, corpus: Corpus, k1: float = K1, b: float = B) -> "BM25":
        """UserError where `k1` is below 0 or `b` not between 0 and 1."""
        import bm25s

        if not (k1 >= 0 and 0 <= b <= 1):
            raise UserError(f"BM25 with k1={k1}, b={b}: k1 from 0 on and b from 0 to 1 are needed")
        others: tuple[object, ...] = () if (k1, b) == (K1, B) else (float(k1), float(b))
        if corpus.language != "en":
            others = (*others, corpus.language, VERSION)
        folder = cache_dir() / "bm25" / digest(corpus.hash, bm25s.__version__, *others)
        if not is_whole(folder):
            _build(folder, corpus, k1, b)
        return cls(bm25s.BM25.load(folder, mmap=True, load_corpus=False), corpus)

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        """(passage id, score) of the k best passages a query, by score, then id. Passages that share no term are left out."""
        depth = min(k + 1, len(self._corpus))  # one more, to see whether a tie goes on past the cut
        found: list[list[tuple[str, float]]] = []
        with bar("BM25", len(queries), "questions") as shown:
            for start in range(0, len(queries), BLOCK):
                tokens = terms_of(queries[start : start + BLOCK], self._corpus.language)
                rows, scores = self._index.retrieve(tokens, k=depth, show_progress=False, n_threads=0)
                for words, row, score in counted(zip(tokens, rows, scores, strict=True), shown):
                    if depth > k and 0 < score[k] == score[k - 1]:
                        every = self._index.get_scores(words)
                        row = np.flatnonzero(every >= score[k - 1])
                        score = every[row]
                    hits = [(self._corpus.id(int(r)), float(s)) for r, s in zip(row, score, strict=True) if s > 0]
                    found.append(best_first(hits)[:k])
        nothing = sum(not hits for hits in found)
        if nothing:
            line = "BM25 finds nothing for %d of %d questions, which share no term with any passage (language=%s)"
            log.warning(line, nothing, len(found), self._corpus.language)
        return found

    def scores(self, queries: Sequence[str], rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Scores of the passages in `rows`, an array of corpus rows a query; 0 where a passage shares no term with it."""
        return [
            self._index.get_scores(words)[own] if words else np.zeros(len(own), np.float32)
            for words, own in zip(terms_of(queries, self._corpus.language), rows, strict=True)
        ]


def _build(folder: Path, corpus: Corpus, k1: float, b: float) -> None:
    import bm25s

    log.info("Indexing %d passages (language=%s) for BM25 once into %s", len(corpus), corpus.language, folder)
    index = bm25s.BM25(k1=k1, b=b, method="lucene", dtype="float32")
    with bar("index for BM25", len(corpus), "passages") as shown:
        tokens = indexed(counted(corpus.texts(), shown), corpus.language)
    if not tokens.vocab:
        raise UserError(f"{len(corpus)} passages with no words that BM25 could index; use candidates=given or another corpus")
    with bar("weigh terms for BM25", None, "passages"):
        index.index(tokens, show_progress=False)
    with whole_dir(folder) as beside:
        index.save(beside, show_progress=False)
        write_json(beside / "manifest.json", {"corpus": corpus.hash, "passages": len(corpus), "k1": k1, "b": b})
