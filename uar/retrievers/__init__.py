"""Retrievers: bi-encoders and BM25; encoding and exact search."""
