"""LLM engines behind one interface: submit requests, step, take replies. Each is imported when it is chosen."""

from uar.annotation.engines.engine import Engine, identity_of

__all__ = ["Engine", "identity_of"]
