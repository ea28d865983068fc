"""Exact search over shards of sparse vectors: corpus shards outside, all queries resident, top-k merged."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from scipy.sparse import csr_matrix

from uar.errors import UserError
from uar.retrievers.exact_search import Best
from uar.retrievers.ties import Found, Ranks
from uar.storage.files import whole_file

QUERIES = 1_024  # scored at a time


def search_impacts(queries: csr_matrix, shards: Sequence[Path], k: int, ranks: Ranks) -> Found:
    """(scores, rows), both (queries, k), by inner product in fp64, best first; row -1 and score 0 where a query shares no
    number with further passages. queries: (queries, vocabulary); shards: files of `save_impacts`, of the corpus in order.
    Of equal scores the lowest rank is kept."""
    asked = [queries[start : start + QUERIES].astype(np.float64) for start in range(0, queries.shape[0], QUERIES)]
    places = torch.from_numpy(np.ascontiguousarray(ranks()))
    best = [Best(torch.empty(part.shape[0], 0, dtype=torch.float64), k, places) for part in asked]
    start = 0
    for shard in shards:
        passages = load_impacts(shard)
        turned = passages.T.tocsr()
        for part, own in zip(asked, best, strict=True):
            own.add_scores(torch.from_numpy((part @ turned).toarray()), start)
        start += passages.shape[0]
    scores, rows = (torch.cat([getattr(own, name) for own in best]).numpy() for name in ("scores", "rows"))
    missing = ((0, 0), (0, k - scores.shape[1]))
    scores, rows = np.pad(scores, missing), np.pad(rows, missing, constant_values=-1)
    rows[scores <= 0] = -1
    return np.maximum(scores, 0), rows


def save_impacts(path: Path, vectors: csr_matrix, dtype: type | None = None) -> None:
    """`dtype`: of the numbers in the file, which are not 0 in it; None is their own."""
    data = vectors.data.astype(dtype or vectors.dtype)
    if not data.all():
        vectors = csr_matrix((data.astype(vectors.dtype), vectors.indices, vectors.indptr), vectors.shape)
        vectors.eliminate_zeros()
        data = vectors.data.astype(data.dtype)
    with whole_file(path) as beside, beside.open("wb") as file:
        np.savez(file, data=data, indices=vectors.indices, indptr=vectors.indptr, shape=np.array(vectors.shape))


def load_impacts(path: Path) -> csr_matrix:
    """(passages, vocabulary) fp64. UserError where the file is cut or none."""
    data, indices, indptr, shape = _read(path, "data", "indices", "indptr", "shape")
    return csr_matrix((data.astype(np.float64), indices, indptr), tuple(shape))


def count_impacts(shards: Sequence[Path]) -> int:
    """Numbers in these files, none of which is 0."""
    return sum(int(_read(shard, "indptr")[0][-1]) for shard in shards)


def _read(path: Path, *names: str) -> list[np.ndarray]:
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in names]
    except (ValueError, BadZipFile, EOFError, KeyError) as error:
        raise UserError(f"{path}: no whole file of sparse vectors ({error}); remove it, and it is made again") from error
