"""Files that are mapped into memory, whose pages can be left again."""

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa


class MappedFile:
    """`buffer`: what the file at `path` holds. It outlives the file's name, which a later version may take over."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.buffer = pa.py_buffer(self._mapping)

    def table(self) -> pa.Table:
        """The rows of an Arrow file."""
        return pa.ipc.open_file(self.buffer).read_all()

    def leave(self) -> None:
        """Take the pages that were read out of this process's memory; they come back when they are read again."""
        _leave(self._mapping)


def leave_array(array: np.ndarray) -> None:
    """The same for an array of `np.load` or `np.memmap` that is mapped."""
    _leave(array._mmap)  # type: ignore[attr-defined]


def _leave(mapping: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
