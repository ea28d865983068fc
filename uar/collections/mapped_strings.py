"""String columns of a memory-mapped Arrow file, of which any rows are read without an Arrow object of each."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from uar.storage.segments import ends_of


class MappedStrings:
    """`column`: without nulls, of the file that `mapped` holds."""

    def __init__(self, column: pa.ChunkedArray, mapped: pa.Buffer) -> None:
        self._ends = ends_of([len(chunk) for chunk in column.chunks])
        buffers = [chunk.buffers() for chunk in column.chunks]
        offsets = [own[1].address - mapped.address for own in buffers]
        self._offsets = np.array(offsets, np.int64) // 4 + np.array([chunk.offset for chunk in column.chunks], np.int64)
        self._data = np.array([own[2].address - mapped.address if own[2] else 0 for own in buffers], np.int64)
        self._bytes = memoryview(mapped)
        self._numbers = np.frombuffer(mapped, np.int32, mapped.size // 4)

    def at(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The strings of some rows. IndexError where there is no such row."""
        wanted = np.asarray(rows, np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self._ends[-1]:
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {self._ends[-1]}")
        chunk = np.searchsorted(self._ends, wanted, side="right") - 1
        places = self._offsets[chunk] + wanted - self._ends[chunk]
        first, last = (self._data[chunk] + self._numbers[at] for at in (places, places + 1))
        if np.array_equal(first, last):  # as where no passage has a title
            return [""] * len(wanted)
        content = self._bytes
        return [str(content[start:end], "utf-8") for start, end in zip(first.tolist(), last.tolist(), strict=True)]
