"""Prompts as data: YAML files whose Jinja fields may use declared variables only."""

from uar.annotation.prompts.scale import Scale, load_scale
from uar.annotation.prompts.template import ChatPrompt, TextPrompt, load_chat, load_text

__all__ = ["ChatPrompt", "Scale", "TextPrompt", "load_chat", "load_scale", "load_text"]
