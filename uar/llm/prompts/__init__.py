"""Prompts as data: YAML files whose Jinja fields may use declared variables only."""

from uar.llm.prompts.template import ChatPrompt, TextPrompt, load_chat, load_text

__all__ = ["ChatPrompt", "TextPrompt", "load_chat", "load_text"]
