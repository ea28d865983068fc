"""Exact search over fp16 shards: corpus shards outside, all queries resident, top-k merged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

FIRST, BLOCK = 4_096, 32_768  # passages scored at a time: few at first, since all of them are candidates
QUERIES = 1_024  # queries scored at a time


class Best:
    """The k best so far of some queries. What does not beat a query's k-th score is not looked at again."""

    def __init__(self, queries: torch.Tensor, k: int) -> None:
        self._queries, self._k = queries, k
        self.scores = queries.new_empty(len(queries), 0)
        self.rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)

    def add(self, passages: torch.Tensor, start: int) -> None:
        """passages: (block, dim) rows `start`, … of the corpus, which come in order: of equal scores the first ones stay."""
        scores = self._queries @ passages.T
        if self.scores.shape[1] < self._k:
            rows = torch.arange(start, start + len(passages), device=scores.device).expand_as(scores)
        else:
            scores, rows = self._above(scores, start)
        scores, rows = torch.cat([self.scores, scores], 1), torch.cat([self.rows, rows], 1)
        self.scores, order = scores.sort(dim=1, descending=True, stable=True)
        self.scores, self.rows = self.scores[:, : self._k].clone(), rows.gather(1, order[:, : self._k])

    def _above(self, scores: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(queries, most) scores above the k-th and their rows, filled up with -inf and -1."""
        query, column = (scores > self.scores[:, -1:]).nonzero(as_tuple=True)
        counts = torch.bincount(query, minlength=len(scores))
        place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        width = int(counts.max())
        found = scores.new_full((len(scores), width), -torch.inf)
        rows = column.new_full((len(scores), width), -1)
        found[query, place] = scores[query, column]
        rows[query, place] = column + start
        return found, rows


@torch.inference_mode()
def search(
    queries: np.ndarray, shards: Sequence[Path], k: int, device: torch.device | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, rows), both (queries, k), by inner product in fp32, best first; row -1 where the corpus has fewer than k.

    queries: (queries, dim) fp32. Equal scores fall by row. `device`: where it is computed; None is the CPU.
    """
    place = device or torch.device("cpu")
    resident = torch.from_numpy(np.ascontiguousarray(queries, np.float32)).to(place)
    best = [Best(part, k) for part in resident.split(QUERIES)]
    for start, block in _blocks(shards):
        passages = torch.from_numpy(block).to(place).float()
        for part in best:
            part.add(passages, start)
    scores, rows = (torch.cat([getattr(part, n) for part in best]).cpu().numpy() for n in ("scores", "rows"))
    missing = ((0, 0), (0, k - scores.shape[1]))
    return np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)


def _blocks(shards: Sequence[Path]) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, fp16 vectors) of blocks that grow, shard after shard."""
    start, size = 0, FIRST
    for shard in shards:
        vectors = np.load(shard, mmap_mode="r")
        at = 0
        while at < len(vectors):
            block = np.array(vectors[at : at + size])
            yield start + at, block
            at += len(block)
            size = min(BLOCK, 2 * size)
        start += len(vectors)
