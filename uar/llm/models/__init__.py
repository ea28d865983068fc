"""LLM engines behind one interface: submit requests, step, take replies. Each is imported when it is chosen."""

from uar.llm.models.model import LLM, Engine, engine_class, identity_of

__all__ = ["LLM", "Engine", "engine_class", "identity_of"]
