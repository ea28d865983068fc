"""Exact search by workers: each looks through some of the shards, and the best of all are kept, as if one had looked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uar.errors import UserError
from uar.machine.precision import device
from uar.machine.workers import Crew, Workers, visible
from uar.retrievers.exact_search import best_of, first, search
from uar.retrievers.ties import Found, Ranks
from uar.retrievers.vector_shards import shard_sizes

PARTS = 4  # a worker: those that are done early take more
Part = tuple[list[Path], list[int], np.ndarray | None]  # shards, the vectors of each, and the ranks of their rows
Asked = tuple[np.ndarray, int]  # queries and k


def search_on_workers(
    workers: Workers, queries: np.ndarray, shards: Sequence[Path], k: int, ranks: Ranks | None = None
) -> Found:
    """As `search`, with the same scores to the bit where workers have this machine's kind of CPU and as many threads."""
    parts = np.array_split(np.arange(len(shards)), min(len(shards), PARTS * workers.actors))
    sizes = shard_sizes(shards)
    ends = np.cumsum([0, *sizes])

    def find(crew: Crew, of: np.ndarray, k: int, every: np.ndarray | None) -> Found:
        given = [
            ([shards[n].absolute() for n in part], [sizes[n] for n in part],
             None if every is None else every[ends[part[0]] : ends[part[-1] + 1]])
            for part in parts
        ]  # fmt: skip
        scores, rows = torch.empty(len(of), 0), torch.empty(len(of), 0, dtype=torch.int64)
        places = None if every is None else torch.from_numpy(every)
        for number, found in crew.each(given, (of, k)):
            theirs, their_rows = (torch.tensor(array) for array in found)
            their_rows[their_rows >= 0] += int(ends[parts[number][0]])
            scores, rows = torch.cat([scores, theirs], 1), torch.cat([rows, their_rows], 1)
            scores, rows = first(scores, rows, k, rows if places is None else places[rows])
        return scores.numpy(), rows.numpy()

    with workers.opened(_opened, len(parts)) as crew:
        return search(queries, shards, k, ranks=ranks, find=lambda *asked: find(crew, *asked))


def _opened() -> Callable[[Part, Asked], Any]:
    """What looks through some shards, in a worker."""
    place = device()

    def look(part: Part, asked: Asked) -> Found:
        shards, sizes, ranks = part
        if not all(map(visible, shards)) or shard_sizes(shards) != sizes:
            raise UserError(f"{shards[0].parent}: not the vectors of the starting machine; all machines must share the folder")
        queries, k = asked
        return best_of(shards, place, queries.copy(), k, ranks)  # what Ray shares cannot be written to, which torch warns of

    return look
