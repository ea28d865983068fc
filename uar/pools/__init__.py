"""Candidate pools: passage ids a query, from BM25, a bi-encoder, files or several of them, the human positive joined in by
choice."""

from uar.pools.bm25_pool import BM25Pool
from uar.pools.contrast_pool import ContrastPool
from uar.pools.dense_pool import DensePool
from uar.pools.given_pool import GivenPool
from uar.pools.other_split import pools_of_other_split
from uar.pools.pool_source import PoolSource, write_pools
from uar.pools.union_pool import RunsPool, UnionPool

__all__ = [
    "BM25Pool",
    "ContrastPool",
    "DensePool",
    "GivenPool",
    "PoolSource",
    "RunsPool",
    "UnionPool",
    "pools_of_other_split",
    "write_pools",
]
