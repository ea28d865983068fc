"""Orders of a run again: what `rerank=NAME` chooses."""

from uar.reranking.by_annotator import ByAnnotator
from uar.reranking.by_ranker import ByRanker
from uar.reranking.reranked import Reranked, reranked

__all__ = ["ByAnnotator", "ByRanker", "Reranked", "reranked"]
