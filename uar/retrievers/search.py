"""Exact search over fp16 shards: corpus shards outside, all queries resident, top-k merged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch  # noqa: F401  before faiss: both bring OpenMP, and torch's must be first

import faiss  # isort: skip

BLOCK = 16_384  # passages turned to fp32 at a time


def search(queries: np.ndarray, shards: Sequence[Path], k: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores, rows), both (queries, k), by inner product, best first; row -1 where the corpus has fewer than k.

    queries: (queries, dim) fp32. Equal scores fall by row.
    """
    scores = np.full((len(queries), 0), -np.inf, np.float32)
    rows = np.full((len(queries), 0), -1, np.int64)
    queries = np.ascontiguousarray(queries, np.float32)
    start = 0
    for shard in shards:
        vectors = np.load(shard, mmap_mode="r")
        for at in range(0, len(vectors), BLOCK):
            block = np.asarray(vectors[at : at + BLOCK], np.float32)
            found, index = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            scores, rows = _merge(scores, rows, found, index + start + at, k)
        start += len(vectors)
    return scores, rows


def _merge(
    scores: np.ndarray, rows: np.ndarray, more: np.ndarray, more_rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    scores, rows = np.concatenate([scores, more], axis=1), np.concatenate([rows, more_rows], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
