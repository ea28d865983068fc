"""Texts that an LLM writes for queries and passages, with which they are searched."""

from uar.expansion.by_llm import ByLLM
from uar.expansion.expanded import Expanded, expanded
from uar.expansion.expanded_passages import ExpandedPassages
from uar.expansion.expanded_pool import ExpandedPool

__all__ = ["ByLLM", "Expanded", "ExpandedPassages", "ExpandedPool", "expanded"]
