"""Texts that an LLM writes for queries, with which they are searched."""

from uar.expansion.expanded import ByLLM, Expanded, expanded

__all__ = ["ByLLM", "Expanded", "expanded"]
