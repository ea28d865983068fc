"""Exact search over fp16 shards: corpus shards outside, all queries resident, top-k merged."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from uar.machine.feed import ahead
from uar.retrievers.ties import Found
from uar.retrievers.vector_shards import load_shard

FIRST, BLOCK = 4_096, 32_768  # passages scored at a time: few at first, since all of them are candidates
QUERIES = 1_024  # queries scored at a time
FP32 = 32 * 2**20  # numbers of a block that faiss searches
OF_FAISS = 1_024  # passages of one product of faiss; parts of a corpus begin at a multiple, so that its products are the same
SPARE = 16
Find = Callable[[np.ndarray, int, np.ndarray | None], Found]  # of queries, k and ranks


class Best:
    """The k best so far of some queries. What does not beat a query's k-th score is not looked at again.

    `ranks`: the place of each row among equal scores; None is the row itself."""

    def __init__(self, queries: torch.Tensor, k: int, ranks: torch.Tensor | None = None) -> None:
        self._queries, self._k, self._ranks = queries, k, ranks
        self.scores = queries.new_empty(len(queries), 0)
        self.rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)

    def add(self, passages: torch.Tensor, start: int) -> None:
        """passages: (block, dim) rows `start`, … of the corpus, which come in order."""
        self.add_scores(self._queries @ passages.T, start)

    def add_scores(self, scores: torch.Tensor, start: int) -> None:
        """scores: (queries, block) of rows `start`, … of the corpus."""
        if self.scores.shape[1] < self._k:
            rows = torch.arange(start, start + scores.shape[1], device=scores.device).expand_as(scores)
        else:
            scores, rows = self._above(scores, start)
        scores, rows = torch.cat([self.scores, scores], 1), torch.cat([self.rows, rows], 1)
        places = None if self._ranks is None else self._ranks[rows]  # row -1, which fills up, has the lowest score of all
        self.scores, self.rows = first(scores, rows, self._k, places)

    def _above(self, scores: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(queries, most) scores that may be among the k best and their rows, filled up with -inf and -1. A score that equals
        the k-th is of a later row, and so none, unless `ranks` say otherwise."""
        worst = self.scores[:, -1:]
        query, column = (scores > worst if self._ranks is None else scores >= worst).nonzero(as_tuple=True)
        counts = torch.bincount(query, minlength=len(scores))
        place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        width = int(counts.max())
        found = scores.new_full((len(scores), width), -torch.inf)
        rows = column.new_full((len(scores), width), -1)
        found[query, place] = scores[query, column]
        rows[query, place] = column + start
        return found, rows


def first(
    scores: torch.Tensor, rows: torch.Tensor, k: int, places: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best of each query, equal scores by `places`, or as they stand; all are (queries, found)."""
    if places is not None:
        order = places.argsort(dim=1)
        scores, rows = scores.gather(1, order), rows.gather(1, order)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :k].clone(), rows.gather(1, order[:, :k])


@torch.inference_mode()
def search(
    queries: np.ndarray,
    shards: Sequence[Path],
    k: int,
    device: torch.device | None = None,
    ranks: Callable[[], np.ndarray] | None = None,
    find: Find | None = None,
) -> Found:
    """(scores, rows), both (queries, k), by inner product in fp32, best first; row -1 where the corpus has fewer than k.

    queries: (queries, dim) fp32. `device`: where it is computed; None is the CPU. Equal scores fall by row. `ranks`, such as
    `Corpus.id_ranks`, is asked where equal scores go on past the k-th: those of the lowest rank are kept, in any order.
    `find`: another that looks through the shards, as `best_of` does.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    find = find or partial(best_of, shards, device or torch.device("cpu"))
    look = k if ranks is None else k + 1  # one more, to see whether a tie goes on past the cut
    scores, rows = find(queries, look, None)
    if ranks is not None and scores.shape[1] > k:
        tied = np.flatnonzero(scores[:, k - 1] == scores[:, k])
        scores, rows = scores[:, :k].copy(), rows[:, :k].copy()
        if len(tied):
            scores[tied], rows[tied] = find(queries[tied], k, ranks())
    missing = ((0, 0), (0, k - scores.shape[1]))
    return np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)


def best_of(
    shards: Sequence[Path], device: torch.device, queries: np.ndarray, k: int, ranks: np.ndarray | None = None
) -> Found:
    """(scores, rows) of the k best, equal scores by rank, else by row; fewer where the shards have fewer."""
    if device.type == "cpu" and ranks is None:
        return _by_faiss(queries, shards, k)
    return _by_torch(queries, shards, k, device, ranks)


def _by_torch(
    queries: np.ndarray, shards: Sequence[Path], k: int, device: torch.device, ranks: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    places = None if ranks is None else torch.from_numpy(ranks).to(device)
    best = [Best(part, k, places) for part in torch.from_numpy(queries).to(device).split(QUERIES)]
    on_cpu = device.type == "cpu"
    dtype = torch.float32 if on_cpu else torch.float16  # half the bytes on the way to a GPU
    blocks = _blocks(shards, FIRST, FIRST if on_cpu else BLOCK, dtype)  # on a CPU the same wherever shards begin
    for start, block in ahead(blocks, device):
        passages = block.to(device, non_blocking=True).float()
        for part in best:
            part.add(passages, start)
    scores, rows = (torch.cat([getattr(part, n) for part in best]).cpu().numpy() for n in ("scores", "rows"))
    return scores, rows


def _by_faiss(queries: np.ndarray, shards: Sequence[Path], k: int) -> tuple[np.ndarray, np.ndarray]:
    """faiss' product keeps the CPU's threads busier than torch's. It keeps any of several equal scores, so some more than k
    are asked for; a query whose ties go on beyond them is searched again."""
    import faiss  # after torch: both bring OpenMP

    block = -(-max(BLOCK, FP32 // queries.shape[1], 384 * k) // OF_FAISS) * OF_FAISS  # k of each are sorted out
    scores, rows = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start, passages in _blocks(shards, block, block):
        found = faiss.knn(queries, passages.numpy(), min(k + SPARE, len(passages)), metric=faiss.METRIC_INNER_PRODUCT)
        scores = torch.cat([scores, torch.from_numpy(found[0])], 1)
        rows = torch.cat([rows, torch.from_numpy(found[1]) + start], 1)
        scores, order = scores.topk(min(k + SPARE, scores.shape[1]), dim=1)
        rows = rows.gather(1, order)
    scores, rows = first(scores, rows, k + SPARE, rows)
    if scores.shape[1] == k + SPARE:
        tied = (scores[:, k - 1] == scores[:, -1]).nonzero()[:, 0]
        if len(tied):
            _, again = _by_torch(queries[tied.numpy()], shards, k, torch.device("cpu"))
            rows[tied, :k] = torch.from_numpy(again)
    return scores[:, :k].numpy(), rows[:, :k].numpy()


def _blocks(
    shards: Sequence[Path], first: int, most: int, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, vectors) of blocks that double in size from `first` to `most` passages, over the ends of shards.

    A block is overwritten by the next one. In fp16, where there is a GPU, it lies in memory of its own, which the GPU reads by
    itself.
    """
    start, size, filled = 0, first, 0
    buffer, pinned = torch.empty(0), dtype == torch.float16 and torch.cuda.is_available()
    for shard in shards:
        vectors = torch.from_numpy(load_shard(shard, mapped=True))
        at = 0
        while at < len(vectors):
            if len(buffer) < size:
                buffer = torch.empty(size, vectors.shape[1], dtype=dtype, pin_memory=pinned)
            part = vectors[at : at + size - filled]
            buffer[filled : filled + len(part)] = part
            at, filled = at + len(part), filled + len(part)
            if filled == size:
                yield start, buffer[:size]
                start, size, filled = start + size, min(most, 2 * size), 0
                buffer = torch.empty(0) if pinned else buffer
    if filled:
        yield start, buffer[:filled]
