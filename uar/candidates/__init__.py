"""Candidate pools: passage ids a query, from BM25, a bi-encoder, files or several of them, the human positive joined in by
choice."""

from uar.candidates.bm25 import BM25Pool
from uar.candidates.dense import DensePool
from uar.candidates.fallback import pools_of_other_split
from uar.candidates.given import GivenPool
from uar.candidates.pool import PoolSource, write_pools
from uar.candidates.union import RunsPool, UnionPool

__all__ = [
    "BM25Pool",
    "DensePool",
    "GivenPool",
    "PoolSource",
    "RunsPool",
    "UnionPool",
    "pools_of_other_split",
    "write_pools",
]
