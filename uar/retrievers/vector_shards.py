"""Files of vectors: rows of a corpus in order, a numpy array each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uar.errors import UserError
from uar.storage.files import read_json

MANIFEST = "manifest.json"  # in a folder of vectors: what made them


def made_of(shards: Sequence[Path]) -> Any:
    """What the folder of the files says that made them, which a copy of it says too."""
    return read_json(shards[0].parent / MANIFEST)


def load_shard(path: Path, mapped: bool = False) -> np.ndarray:
    """(passages, numbers) of one file. `mapped`: into memory as it is read. UserError where the file is cut or no array."""
    try:
        found: np.ndarray = np.load(path, mmap_mode="c" if mapped else None)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: no whole file of vectors ({error}); remove it, and it is made again") from error
    return found


def shard_sizes(shards: Sequence[Path]) -> list[int]:
    """Vectors of each file."""
    return [len(load_shard(shard, mapped=True)) for shard in shards]


def evenly(shards: Sequence[Path], most: int) -> np.ndarray:
    """At most so many vectors in fp32, every n-th of the corpus over the ends of its shards."""
    sizes = shard_sizes(shards)
    step = max(1, -(-sum(sizes) // most))
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [load_shard(shard, mapped=True)[-start % step :: step] for shard, start in zip(shards, starts, strict=True)]
    return np.concatenate(parts).astype(np.float32)


class Rows:
    """Vectors by corpus row, read from files that stay on the disk."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = [load_shard(shard, mapped=True) for shard in shards]
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(rows, numbers) fp32, in the order of `rows`; each file is read from its beginning to its end."""
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        out = np.empty((len(rows), self._shards[0].shape[1]), np.float32)
        bounds = np.searchsorted(ordered, self._starts)
        for shard, start, first, end in zip(self._shards, self._starts, bounds, bounds[1:], strict=False):
            if end > first:
                out[order[first:end]] = shard[ordered[first:end] - start]
        return out
