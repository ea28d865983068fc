"""Orders of a run again: what `rerank=NAME` chooses."""

from uar.reranking.by_ranker import ByRanker
from uar.reranking.reranked import Reranked, reranked

__all__ = ["ByRanker", "Reranked", "reranked"]
