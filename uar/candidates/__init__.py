"""Candidate pools: passage ids a query, from BM25, a bi-encoder or a file, the human positive joined in by choice."""

from uar.candidates.bm25 import BM25Pool
from uar.candidates.dense import DensePool
from uar.candidates.given import GivenPool
from uar.candidates.pool import PoolSource, write_pools

__all__ = ["BM25Pool", "DensePool", "GivenPool", "PoolSource", "write_pools"]
