"""How a corpus of vectors is searched: exactly, or through a faiss index whose recall is measured against that."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uar.collections import Corpus
from uar.errors import UserError
from uar.machine.precision import NAMES, device
from uar.retrievers.exact_search import search
from uar.retrievers.vectors import Vectors

log = logging.getLogger(__name__)
Found = tuple[np.ndarray, np.ndarray]  # scores and rows, both (queries, k)
Ranks = Callable[[], np.ndarray]  # the place of each row among equal scores


@dataclass(frozen=True)
class ExactSearch:
    """Every vector is looked at. `embeddings`: a folder that keeps the vectors of each corpus; None: see `Vectors`.
    `processes`: so many encode beside each other. `precision` of the encoding: auto, bf16, fp32 or fp16. `recalls`: the share
    of the exact results that the last search had, by `recall@k`, where the search is not exact."""

    embeddings: str | None = None
    processes: int = 1
    precision: str = "auto"
    recalls: dict[str, float] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise UserError(f"search.processes={self.processes}: at least 1 is needed")
        if self.precision not in ("auto", *NAMES):
            raise UserError(f"search.precision={self.precision!r} is not known; allowed: auto, {', '.join(NAMES)}")

    def vectors(self) -> Vectors:
        return Vectors(Path(self.embeddings) if self.embeddings else None)

    def check(self, passages: int, dim: int) -> None:
        """UserError where so many vectors of so many dimensions cannot be searched; asked before any is made."""

    def forget(self, corpus: Corpus) -> None:
        """A corpus is not searched any more."""

    def best(self, queries: np.ndarray, shards: Sequence[Path], k: int, ranks: Ranks | None = None) -> Found:
        """queries: (queries, dim) fp32; shards: fp16 files of the corpus in order. See `search`."""
        return search(queries, shards, k, device(), ranks)


@dataclass(frozen=True)
class FaissSearch(ExactSearch):
    """Through an index of faiss' factory language, such as `Flat`, `IVF{lists},Flat`, `IVF{lists},PQ48` or `HNSW32`, by inner
    product. `{lists}` is four times the root of the corpus' size.

    `probes`: lists of an IVF that are looked through; `ef_search`: breadth of the search in an HNSW graph; `train_on`: at most
    so many vectors, evenly from the corpus, train the index, which is made once for a corpus. The recall of `recall_queries`
    queries against exact search is logged.
    """

    factory: str = "Flat"
    probes: int = 32
    ef_search: int = 128
    train_on: int = 262_144
    recall_queries: int = 200
    _made: dict[tuple[tuple[Path, int], ...], Any] = field(default_factory=dict, init=False, compare=False)

    def check(self, passages: int, dim: int) -> None:
        index = self._empty(passages, dim)
        given = min(passages, self.train_on)
        needed = 0 if index.is_trained else training_vectors(index)
        if given < needed:
            raise UserError(
                f"search.factory={self.factory}: its training needs {needed} vectors and gets {given} (passages: {passages}, "
                f"search.train_on={self.train_on}); give a factory with fewer lists or smaller codes, such as Flat or HNSW32"
            )

    def forget(self, corpus: Corpus) -> None:
        for made in [made for made in self._made if made[0][0].parent.name == corpus.hash]:
            del self._made[made]

    def best(self, queries: np.ndarray, shards: Sequence[Path], k: int, ranks: Ranks | None = None) -> Found:
        self.recalls.clear()
        queries = np.ascontiguousarray(queries, np.float32)
        made = tuple((shard, shard.stat().st_mtime_ns) for shard in shards)
        if made not in self._made:
            self._made[made] = self._index(shards, queries.shape[1])
        scores, rows = _first(self._made[made], queries, k, ranks)
        some = queries[: self.recall_queries]
        if len(some):
            _, exact = search(some, shards, k, device(), ranks)
            value = self.recalls[f"recall@{k}"] = recall(rows, exact)
            message = "search: recall@%d of %s against exact search: %.4f (%d queries)"
            log.info(message, k, self.factory, value, len(some))
        return scores, rows

    def _index(self, shards: Sequence[Path], dim: int) -> Any:
        import faiss  # after torch: both bring OpenMP

        sizes = [len(np.load(shard, mmap_mode="r")) for shard in shards]
        index = self._empty(sum(sizes), dim)
        if not index.is_trained:
            vectors = evenly(shards, sizes, self.train_on)
            try:
                index.train(vectors)
            except RuntimeError as error:
                message = _message(error)
                reason = f"{len(vectors)} vectors do not train it ({message})"
                raise UserError(f"search.factory={self.factory}: {reason}") from error
        for shard in shards:
            index.add(_vectors(shard))
        if "IVF" in self.factory:
            faiss.extract_index_ivf(index).nprobe = self.probes
        if isinstance(index, faiss.IndexHNSW):
            index.hnsw.efSearch = self.ef_search
        return index

    def _empty(self, passages: int, dim: int) -> Any:
        import faiss

        factory = self.factory.replace("{lists}", str(max(1, round(4 * passages**0.5))))
        try:
            return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            message = _message(error)
            raise UserError(f"search.factory={self.factory}: faiss cannot make it for {dim} dimensions ({message})") from error


def _first(index: Any, queries: np.ndarray, k: int, ranks: Ranks | None) -> Found:
    """The k best that an index finds. Where equal scores go on past the k-th, more are asked for until they end, and those of
    the lowest rank are kept; without `ranks`, those of the lowest row."""
    wide = min(k + 1, index.ntotal)
    scores, rows = index.search(queries, wide)
    if wide <= k:
        return scores, rows
    best, found = scores[:, :k].copy(), rows[:, :k].copy()
    tied = np.flatnonzero((scores[:, k - 1] == scores[:, k]) & (rows[:, k] >= 0))
    places = (ranks() if ranks else np.arange(index.ntotal)) if len(tied) else np.zeros(0, np.int64)
    while len(tied):
        wide = min(2 * wide, index.ntotal)
        scores, rows = index.search(queries[tied], wide)
        order = np.lexsort((places[rows], -scores))[:, :k]
        best[tied], found[tied] = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        go_on = (scores[:, k - 1] == scores[:, -1]) & (rows[:, -1] >= 0) & (wide < index.ntotal)
        tied = tied[go_on]
    return best, found


def _message(error: RuntimeError) -> str:
    return str(error).split("Error: ")[-1].splitlines()[0]


def training_vectors(index: Any) -> int:
    """Vectors that the training of a faiss index needs at least: one a list of an IVF, one a centroid of a product quantizer,
    also of those inside it."""
    import faiss

    index = faiss.downcast_index(index)
    parts = [getattr(index, name) for name in ("index", "base_index", "quantizer", "storage") if hasattr(index, name)]
    inside = [training_vectors(part) for part in parts if part is not None and not part.is_trained]
    lists = getattr(index, "nlist", 0)
    centroids = index.pq.ksub if hasattr(index, "pq") else 0
    return max(lists, centroids, *inside, 0)


def evenly(shards: Sequence[Path], sizes: Sequence[int], most: int) -> np.ndarray:
    """At most so many vectors, every n-th of the corpus over the ends of its shards."""
    step = max(1, -(-sum(sizes) // most))
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([_vectors(shard)[-start % step :: step] for shard, start in zip(shards, starts, strict=True)])


def recall(rows: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact results, (queries, k), that `rows` has; for as many queries as `exact` has."""
    pairs = [(set(found), set(true) - {-1}) for found, true in zip(rows.tolist(), exact.tolist(), strict=False)]
    return sum(len(found & true) for found, true in pairs) / max(1, sum(len(true) for _, true in pairs))


def _vectors(shard: Path) -> np.ndarray:
    return np.load(shard).astype(np.float32)
