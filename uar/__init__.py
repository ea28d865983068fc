"""Train retrievers for RAG from utility labels that an LLM wrote."""

__version__ = "0.1.0"
