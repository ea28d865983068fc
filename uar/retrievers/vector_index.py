"""How a corpus of vectors is searched: exactly, or through smaller vectors or a faiss index, whose recall is measured against
that."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uar.collections import Corpus
from uar.errors import UserError
from uar.machine.precision import NAMES, device
from uar.machine.workers import chosen_workers
from uar.retrievers.exact_search import search
from uar.retrievers.rescoring import rescored
from uar.retrievers.search_on_workers import search_on_workers
from uar.retrievers.small_vectors import KINDS, SmallVectors
from uar.retrievers.ties import Found, Ranks, first_of
from uar.retrievers.vector_shards import Rows, evenly, load_shard, made_of, shard_sizes
from uar.retrievers.vectors import Vectors
from uar.storage.files import digest, whole_file
from uar.storage.locks import alone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExactSearch:
    """Every vector is looked at. `embeddings`: a folder that keeps the vectors of each corpus; None: see `Vectors`.
    `processes`: so many encode beside each other; auto: one a GPU, or one. `precision` of the encoding: auto, bf16, fp32 or
    fp16.

    `dimensions`: the first so many numbers of each vector are looked at; None for all. `quantize`: int8 or binary codes are
    looked at; see `SmallVectors`. With either, `rescore` times as many results as are wanted are scored again with the whole
    vectors, which stay on the disk; 0: none. The recall of `recall_queries` queries against exact search is logged.

    `facts`: of the last search, `bytes_per_passage`, of what was looked at, unless it was an index, and where it is not exact
    `recall@k`, the share of the exact results that it had."""

    scans = True
    embeddings: str | None = None
    processes: int | str = "auto"
    precision: str = "auto"
    dimensions: int | None = None
    quantize: str | None = None
    rescore: int = 4
    recall_queries: int = 200
    facts: dict[str, float] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.processes != "auto" and not (isinstance(self.processes, int) and self.processes >= 1):
            raise UserError(f"search.processes={self.processes}: auto, or a whole number from 1 on, is needed")
        if self.precision not in ("auto", *NAMES):
            raise UserError(f"search.precision={self.precision!r} is not known; allowed: auto, {', '.join(NAMES)}")
        if self.quantize is not None and self.quantize not in KINDS:
            raise UserError(f"search.quantize={self.quantize!r} is not known; allowed: null, {', '.join(KINDS)}")
        self._check_least(0, "rescore", "recall_queries")

    def _check_least(self, least: int, *options: str) -> None:
        for name in options:
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise UserError(f"search.{name}={value}: a whole number from {least} on is needed")

    @property
    def encoders(self) -> int:
        """Processes that encode beside each other."""
        return max(1, torch.cuda.device_count()) if self.processes == "auto" else int(self.processes)

    def vectors(self) -> Vectors:
        return Vectors(Path(self.embeddings) if self.embeddings else None)

    def check(self, passages: int, dim: int) -> None:
        """UserError where so many vectors of so many dimensions cannot be searched; asked before any is made."""
        if self.dimensions is not None and not 1 <= self.dimensions <= dim:
            raise UserError(f"search.dimensions={self.dimensions}: vectors have {dim} numbers; give 1 to {dim}, or null")

    def warn_of_processes(self, name: str) -> None:
        """Say where there are several that a retriever of that name encodes in one process."""
        if self.processes not in ("auto", 1):
            log.warning("search.processes=%s has no effect on %s, which encodes in one process", self.processes, name)
        if chosen_workers():
            log.warning("workers=ray has no effect on %s, which encodes and is searched in one process", name)

    def forget(self, corpus: Corpus) -> None:
        """A corpus is not searched any more."""

    def best(
        self, queries: np.ndarray, shards: Sequence[Path], k: int, ranks: Ranks | None = None, unit: bool = False
    ) -> Found:
        """queries: (queries, dim) fp32; shards: fp16 files of the corpus in order. See `search`. `unit`: whether vectors have
        length 1, and so shall the shorter ones."""
        self.facts.clear()
        queries = np.ascontiguousarray(queries, np.float32)
        dim = queries.shape[1]
        used = self.dimensions or dim
        if used == dim and self.quantize is None:
            found = self._among(queries, shards, k, ranks)
            self._note(queries, shards, found, k, ranks, 2 * dim)
            return found
        small = SmallVectors(shards, used, self.quantize, unit)
        passages = sum(shard_sizes(shards))
        wide = min(max(1, self.rescore) * k, passages)
        found = small.search(queries, wide, None if self.rescore else ranks, self._among)
        if self.rescore:
            found = rescored(queries, Rows(shards), found[1], k, ranks)
        again = f"the best {wide} of {passages} scored again" if self.rescore else "none scored again"
        line = "search: %s, %d of %d numbers, %d bytes a passage in place of %d; %s"
        log.info(line, self.quantize or "fp16", used, dim, small.bytes, 2 * dim, again)
        self._note(queries, shards, found, k, ranks, small.bytes)
        return found

    def _among(self, queries: np.ndarray, shards: Sequence[Path], k: int, ranks: Ranks | None) -> Found:
        """The best of files of numbers, whole vectors or smaller ones."""
        return _exact(queries, shards, k, ranks)

    @property
    def shortcut(self) -> str:
        """What makes the search other than exact; empty where it is exact."""
        short = f"{self.dimensions} numbers" if self.dimensions else ""
        return ", ".join(part for part in (self.quantize, short) if part)

    def _note(self, queries: np.ndarray, shards: Sequence[Path], found: Found, k: int, ranks: Ranks | None, size: int) -> None:
        if self.scans:
            self.facts["bytes_per_passage"] = size
        some = queries[: self.recall_queries]
        if self.shortcut and len(some):
            _, exact = _exact(some, shards, k, ranks)
            value = self.facts[f"recall@{k}"] = recall(found[1], exact)
            message = "search: recall@%d of %s against exact search: %.4f (%d queries)"
            log.info(message, k, self.shortcut, value, len(some))


@dataclass(frozen=True)
class FaissSearch(ExactSearch):
    """Through an index of faiss' factory language, such as `Flat`, `IVF{lists},Flat`, `IVF{lists},PQ48` or `HNSW32`, by inner
    product. `{lists}` is four times the root of the corpus' size.

    `probes`: lists of an IVF that are looked through; `ef_search`: breadth of the search in an HNSW graph; `train_on`: at most
    so many vectors, evenly from the corpus, train the index; None: 64 a list of it, and 65,536 at least. Smaller codes than
    `dimensions` are the index' own: `quantize` is refused.

    The index is a file beside the vectors, by what makes them and by what makes it, and stays as long as they do. It is mapped
    into memory.
    """

    scans = False
    factory: str = "Flat"
    probes: int = 32
    ef_search: int = 128
    train_on: int | None = None
    _opened: dict[Path, Any] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantize is not None:
            raise UserError(
                f"search.quantize={self.quantize}: an index of faiss has codes of its own, such as search.factory=SQ8; use "
                "search=exact, or set search.quantize=null"
            )
        self._check_least(1, "probes", "ef_search", *(() if self.train_on is None else ("train_on",)))

    def check(self, passages: int, dim: int) -> None:
        super().check(passages, dim)
        index = self._empty(passages, self.dimensions or dim)
        most = self._training(index)
        given = min(passages, most)
        needed = 0 if index.is_trained else training_vectors(index)
        if given < needed:
            raise UserError(
                f"search.factory={self.factory}: its training needs {needed} vectors and gets {given} (passages: {passages}, "
                f"search.train_on={most}); give a factory with fewer lists or smaller codes, such as Flat or HNSW32"
            )

    def forget(self, corpus: Corpus) -> None:
        for path in [path for path in self._opened if corpus.hash in path.parts]:
            del self._opened[path]

    @property
    def shortcut(self) -> str:
        return ", ".join(part for part in (self.factory, super().shortcut) if part)

    def _among(self, queries: np.ndarray, shards: Sequence[Path], k: int, ranks: Ranks | None) -> Found:
        name = digest(self._name(sum(shard_sizes(shards))), self.train_on, queries.shape[1], made_of(shards))
        path = shards[0].parent / f"{name}.faiss"
        if path not in self._opened:
            self._opened[path] = self._read(path, shards, queries.shape[1])
        return first_of(self._opened[path], queries, k, ranks)

    def _read(self, path: Path, shards: Sequence[Path], dim: int) -> Any:
        import faiss  # after torch: both bring OpenMP

        if not path.is_file():
            with alone(path.with_suffix(".lock"), f"making an index of {self.factory}"):
                if not path.is_file():
                    with whole_file(path) as beside:
                        faiss.write_index(self._index(shards, dim), str(beside))
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise UserError(f"{path}: no whole index ({_message(error)}); remove it, and it is made again") from error
        if "IVF" in self.factory:
            faiss.ParameterSpace().set_index_parameter(index, "nprobe", self.probes)
        if "HNSW" in self.factory:
            faiss.ParameterSpace().set_index_parameter(index, "efSearch", self.ef_search)
        return index

    def _index(self, shards: Sequence[Path], dim: int) -> Any:
        index = self._empty(sum(shard_sizes(shards)), dim)
        if not index.is_trained:
            vectors = evenly(shards, self._training(index))
            try:
                index.train(vectors)
            except RuntimeError as error:
                message = _message(error)
                reason = f"{len(vectors)} vectors do not train it ({message})"
                raise UserError(f"search.factory={self.factory}: {reason}") from error
        for shard in shards:
            index.add(load_shard(shard).astype(np.float32))
        return index

    def _training(self, index: Any) -> int:
        """At most so many vectors."""
        return self.train_on or max(65_536, 64 * _lists(index))

    def _name(self, passages: int) -> str:
        """In faiss' factory language, for so many vectors."""
        return self.factory.replace("{lists}", str(max(1, round(4 * passages**0.5))))

    def _empty(self, passages: int, dim: int) -> Any:
        import faiss

        factory = self._name(passages)
        try:
            return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            message = _message(error)
            raise UserError(f"search.factory={self.factory}: faiss cannot make it for {dim} dimensions ({message})") from error


def _exact(queries: np.ndarray, shards: Sequence[Path], k: int, ranks: Ranks | None) -> Found:
    workers = chosen_workers()
    if workers and len(shards) > 1:
        return search_on_workers(workers, queries, shards, k, ranks)
    return search(queries, shards, k, device(), ranks)


def _message(error: RuntimeError) -> str:
    return str(error).split("Error: ")[-1].splitlines()[0]


def _lists(index: Any) -> int:
    import faiss

    try:
        return int(faiss.extract_index_ivf(index).nlist)
    except RuntimeError:  # it has no lists
        return 0


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


def recall(rows: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact results, (queries, k), that `rows` has; for as many queries as `exact` has."""
    pairs = [(set(found), set(true) - {-1}) for found, true in zip(rows.tolist(), exact.tolist(), strict=False)]
    return sum(len(found & true) for found, true in pairs) / max(1, sum(len(true) for _, true in pairs))
