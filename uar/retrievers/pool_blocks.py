"""The passages of many pools, each once, some at a time."""

from collections.abc import Iterator, Mapping

import numpy as np

Block = tuple[np.ndarray, list[tuple[str, np.ndarray, np.ndarray]]]


def pool_blocks(rows: Mapping[str, np.ndarray], size: int) -> Iterator[Block]:
    """Corpus rows, at most `size`, and of each query that has some of them: its places in the pool, and their places among
    these rows. `rows`: of the passages of each query's pool."""
    used = np.unique(np.concatenate([np.zeros(0, np.int64), *rows.values()]))
    for start in range(0, len(used), size):
        block = used[start : start + size]
        shared = []
        for query_id, own in rows.items():
            at = np.flatnonzero((own >= block[0]) & (own <= block[-1]))
            if len(at):
                shared.append((query_id, at, np.searchsorted(block, own[at])))
        yield block, shared
