"""Smaller forms of vectors, made from the whole ones in one pass: the first so many numbers, a byte a number, a bit a number.

A byte is the place between the least and the greatest value of its number in the corpus; a bit is the sign. Queries stay as
they are beside bytes, and are signs beside bits, of which Hamming distance is counted. These are the int8 and binary forms of
sentence-transformers' `quantize_embeddings`, but for values outside of the ranges, which are cut and do not wrap around.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uar.retrievers.ties import Found, Ranks, first_of
from uar.retrievers.vector_shards import MANIFEST, evenly, load_shard, made_of, shard_sizes
from uar.storage.files import read_json, writable, write_array, write_json
from uar.storage.locks import alone

KINDS = ("int8", "binary")
CALIBRATION = 100_000  # vectors, evenly from the corpus, that say between which values a number lies
HAMMING = 1 << 26  # bytes of codes that are compared at a time
Search = Callable[[np.ndarray, Sequence[Path], int, Ranks | None], Found]


def shortened(vectors: np.ndarray, dimensions: int, unit: bool) -> np.ndarray:
    """(vectors, dimensions) fp32, the first numbers; `unit`: brought to length 1 again, where some are left out."""
    short: np.ndarray = vectors[:, :dimensions].astype(np.float32)
    whole = dimensions == vectors.shape[1]
    return short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12) if unit and not whole else short


class SmallVectors:
    """Of the files `whole`, in a folder beside them, made where they are not there yet. `kind`: int8, binary, or None for
    fp16; `unit`: whether vectors have length 1."""

    def __init__(self, whole: Sequence[Path], dimensions: int, kind: str | None, unit: bool) -> None:
        self._dimensions, self._kind, self._unit = dimensions, kind, unit
        self._folder = whole[0].parent / f"{kind or 'fp16'}-{dimensions}"
        self._ranges = self._folder / "ranges.npy"
        self.shards = [self._folder / path.name for path in whole]
        self._make(whole)

    @property
    def bytes(self) -> int:
        """Of one vector."""
        return -(-self._dimensions // 8) if self._kind == "binary" else self._dimensions * (1 if self._kind == "int8" else 2)

    def search(self, queries: np.ndarray, k: int, ranks: Ranks | None, search: Search) -> Found:
        """(scores, rows) of the k best. `search`: how arrays of numbers are searched. Scores are inner products, of bits
        cosines of signs."""
        queries = shortened(queries, self._dimensions, self._unit)
        if self._kind == "binary":
            return first_of(_Bits(self.shards, self._dimensions), _signs(queries), k, ranks)
        if self._kind is None:
            return search(queries, self.shards, k, ranks)
        start, step = self._calibration()
        scores, rows = search(queries * step, self.shards, k, ranks)
        return scores + (queries @ (start + 128 * step))[:, None], rows

    def _make(self, whole: Sequence[Path]) -> None:
        """Those that are there may be of other whole ones."""
        made = {"of": made_of(whole), "unit": self._unit}
        if self._is_of(made) and all(small.is_file() for small in self.shards):
            return
        with writable(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with alone(self._folder / "filling.lock", "making smaller vectors"):
            if not self._is_of(made):
                for old in self._folder.glob("*.npy"):
                    old.unlink()
                if self._kind == "int8":
                    some = shortened(evenly(whole, CALIBRATION), self._dimensions, self._unit)
                    write_array(self._ranges, np.stack([some.min(axis=0), some.max(axis=0)]))
                write_json(self._folder / MANIFEST, made)
            for path, small in zip(whole, self.shards, strict=True):
                if not small.is_file():
                    write_array(small, self._coded(shortened(load_shard(path), self._dimensions, self._unit)))

    def _is_of(self, made: Mapping[str, Any]) -> bool:
        manifest = self._folder / MANIFEST
        ranged = self._kind != "int8" or self._ranges.is_file()
        return ranged and manifest.is_file() and read_json(manifest) == made

    def _coded(self, vectors: np.ndarray) -> np.ndarray:
        if self._kind == "binary":
            return _signs(vectors)
        if self._kind is None:
            return vectors.astype(np.float16)
        start, step = self._calibration()
        return np.clip(np.rint((vectors - start) / step) - 128, -128, 127).astype(np.int8)

    def _calibration(self) -> tuple[np.ndarray, np.ndarray]:
        """The least value of each number, and what one step of its byte is worth."""
        low, high = load_shard(self._ranges)
        return low, np.where(high > low, (high - low) / 255, 1.0).astype(np.float32)


class _Bits:
    """Searched as an index of faiss is: the nearest by Hamming distance, by row where distances are equal."""

    def __init__(self, shards: Sequence[Path], dimensions: int) -> None:
        self._shards, self._dimensions = shards, dimensions
        self._sizes = shard_sizes(shards)
        self.ntotal = sum(self._sizes)

    def search(self, queries: np.ndarray, k: int) -> Found:
        import faiss  # after torch: both bring OpenMP

        distances, rows = np.empty((len(queries), 0), np.int32), np.empty((len(queries), 0), np.int64)
        start = 0
        for block in self._blocks(queries.shape[1]):
            codes = np.concatenate([load_shard(shard) for shard in block])
            near, at = faiss.knn_hamming(queries, codes, min(k, len(codes)))
            distances, rows = np.concatenate([distances, near], 1), np.concatenate([rows, at + start], 1)
            order = np.argsort(distances, axis=1, kind="stable")[:, :k]  # rows before it come first
            distances, rows = np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)
            start += len(codes)
        return (1 - 2 * distances / self._dimensions).astype(np.float32), rows

    def _blocks(self, width: int) -> list[list[Path]]:
        blocks: list[list[Path]] = []
        held = HAMMING
        for shard, size in zip(self._shards, self._sizes, strict=True):
            if held + size * width > HAMMING:
                blocks.append([])
                held = 0
            blocks[-1].append(shard)
            held += size * width
        return blocks


def _signs(vectors: np.ndarray) -> np.ndarray:
    """(vectors, ⌈numbers/8⌉) bytes."""
    return np.packbits(vectors > 0, axis=1)
