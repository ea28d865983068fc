"""Candidate pools: passage ids a query, from BM25 or from a file, the human positive joined in by choice."""

from uar.candidates.bm25 import BM25Pool
from uar.candidates.given import GivenPool
from uar.candidates.pool import PoolSource, write_pools

__all__ = ["BM25Pool", "GivenPool", "PoolSource", "write_pools"]
