"""LLM engines behind one interface: submit requests, step, take replies. Each is imported when it is chosen."""

from uar.llm.models.model import LLM, Model, identity_of, model_class

__all__ = ["LLM", "Model", "model_class", "identity_of"]
