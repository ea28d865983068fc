"""An inverted index on disk: of each term, the passages that have it and its weight in them.

It is written in two passes over the terms of the corpus, a block of passages at a time, and read through memory maps, so that
neither holds the index in memory.

numba is imported where it is used, since it is slow to import.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uar.errors import UserError
from uar.storage.files import write_array
from uar.storage.segments import ends_of

TERMS = pa.schema([("term", pa.string())])
Block = tuple[np.ndarray, np.ndarray]  # term numbers of passages, one passage after another, and how many each has


@dataclass(frozen=True)
class Postings:
    """ends: (terms + 1,) places in the two others; rows: int32 corpus rows, ascending in a term; weights: fp32, of BM25."""

    terms: pa.ChunkedArray
    ends: np.ndarray
    rows: np.ndarray
    weights: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> "Postings":
        terms = pa.ipc.open_file(pa.memory_map(str(folder / "terms.arrow"))).read_all()["term"]
        return cls(terms, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ends", "rows", "weights")))

    def numbers(self, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Term numbers of texts, of those of their words that the corpus has."""
        words = pa.array([word for text in texts for word in text], pa.string())
        found = pc.index_in(words, value_set=self._whole).fill_null(-1).to_numpy()
        parts = np.split(found.astype(np.int64), ends_of([len(text) for text in texts])[1:-1])
        return [part[part >= 0] for part in parts]

    @cached_property
    def _whole(self) -> pa.Array:
        return self.terms.combine_chunks()


def write_postings(folder: Path, blocks: Iterable[Block], vocabulary: dict[str, int], k1: float, b: float) -> None:
    """Lucene's BM25 weights of the passages in `blocks`, whose reading fills `vocabulary` (term numbers by term).
    UserError where there is no term."""
    from uar.retrievers.bm25.kernels import count_passages, place_postings, weigh

    written, sizes = folder / "passages.bin", []
    with written.open("wb") as file:
        for numbers, lengths in blocks:
            file.write(numbers.astype("<i4").tobytes())
            sizes.append(lengths)
    if not vocabulary:
        raise UserError(
            f"{sum(map(len, sizes))} passages with no words that BM25 could index; use candidates=given or another corpus"
        )
    lengths = np.concatenate(sizes)
    passages = ends_of(lengths)
    numbers = np.memmap(written, "<i4", "r")
    counts = np.zeros(len(vocabulary), np.int64)
    count_passages(numbers, passages, counts)
    ends = ends_of(counts)
    rows, weights = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (int(ends[-1]),))
        for name, dtype in (("rows", np.int32), ("weights", np.float32))
    )
    place_postings(numbers, passages, ends[:-1].copy(), rows, weights)
    idf = np.log(1 + (len(lengths) - counts + 0.5) / (counts + 0.5)).astype(np.float32)
    weigh(ends, rows, weights, idf, k1 * ((1 - b) + b * lengths / lengths.mean()))
    rows.flush()
    weights.flush()
    del numbers
    written.unlink()
    write_array(folder / "ends.npy", ends)
    with pa.OSFile(str(folder / "terms.arrow"), "wb") as sink, pa.ipc.new_file(sink, TERMS) as writer:
        writer.write_table(pa.table([list(vocabulary)], schema=TERMS))
