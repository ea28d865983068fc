"""An inverted index on disk: of each term, the passages that have it and its weight in them.

It is written in passes over the terms of the corpus, each a block of passages at a time and for so many postings as memory has
room for, and read through memory maps, so that neither holds the index in memory.

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

HELD = 1 << 26  # postings that are put in order at a time: half a GiB
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
    from uar.retrievers.bm25.kernels import count_passages

    written, sizes, counts = folder / "passages.bin", [], np.zeros(0, np.int64)
    with written.open("wb") as file:
        for numbers, lengths in blocks:
            file.write(numbers.astype("<i4").tobytes())
            sizes.append(lengths.astype(np.int32))
            counts = np.pad(counts, (0, len(vocabulary) - len(counts)))
            count_passages(numbers, ends_of(lengths), counts)
    if not vocabulary:
        raise UserError(
            f"{sum(map(len, sizes))} passages with no words that BM25 could index; use candidates=given or another corpus"
        )
    ends, mean = ends_of(counts), float(np.concatenate(sizes).mean())
    write_array(folder / "ends.npy", ends)
    with pa.OSFile(str(folder / "terms.arrow"), "wb") as sink, pa.ipc.new_file(sink, TERMS) as writer:
        writer.write_table(pa.table([list(vocabulary)], schema=TERMS))
    idf = np.log(1 + (sum(map(len, sizes)) - counts + 0.5) / (counts + 0.5)).astype(np.float32)
    norms = np.concatenate([k1 * ((1 - b) + b * own / mean) for own in sizes])
    _write_columns(folder, written, sizes, ends, idf, norms)
    written.unlink()


def _write_columns(
    folder: Path, written: Path, sizes: Sequence[np.ndarray], ends: np.ndarray, idf: np.ndarray, norms: np.ndarray
) -> None:
    """Rows and weights, those of some terms at a time, for which the terms of all passages are read again: a place for each
    posting of the whole index would have to be written at random."""
    from uar.retrievers.bm25.kernels import place_postings, weigh

    with (folder / "rows.npy").open("wb") as of_rows, (folder / "weights.npy").open("wb") as of_weights:
        for file, kind in ((of_rows, "<i4"), (of_weights, "<f4")):
            header = {"descr": kind, "fortran_order": False, "shape": (int(ends[-1]),)}
            np.lib.format.write_array_header_1_0(file, header)
        first = 0
        while first < len(idf):
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + HELD, "right")) - 1)
            own = ends[first : last + 1] - ends[first]
            rows, weights, free = np.empty(own[-1], np.int32), np.empty(own[-1], np.float32), own[:-1].copy()
            row = 0
            with written.open("rb") as source:
                for lengths in sizes:
                    numbers = np.fromfile(source, "<i4", int(lengths.sum()))
                    place_postings(numbers, ends_of(lengths), row, first, free, rows, weights)
                    row += len(lengths)
            weigh(own, rows, weights, idf[first:last], norms)
            rows.tofile(of_rows)
            weights.tofile(of_weights)
            first = last
