"""Vectors of queries, for acquisitions that look at their texts alone."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uar.acquisition.acquisition import AcquisitionContext
from uar.errors import UserError

if TYPE_CHECKING:  # an annotation that chooses no queries has no use for torch
    from uar.retrievers.ranker import Ranker

BLOCK = 4_096  # queries that are encoded at once


def query_vectors(retriever: "Callable[[], Ranker]", context: AcquisitionContext, query_ids: Sequence[str]) -> np.ndarray:
    """(queries, dim) fp32 vectors of length 1. UserError where the retriever has no vectors."""
    from uar.machine.precision import device
    from uar.retrievers.encode import encode_rows
    from uar.retrievers.trainable import Encoder

    if context.collection is None:
        raise UserError("this acquisition needs the texts of the queries, and there are none here; use acquire=random")
    encoder = retriever()
    if not isinstance(encoder, Encoder):
        raise UserError(f"acquire.retriever: {encoder.name} makes no vectors of queries; use acquire.retriever.model=ENCODER")
    encoder.to(device())
    rows = [context.collection.query_rows[q] for q in query_ids]
    tokens = encoder.query_tokens(context.collection)
    blocks = [encode_rows(encoder, tokens, rows[at : at + BLOCK], role="query") for at in range(0, len(rows), BLOCK)]
    vectors = np.concatenate([np.zeros((0, encoder.dim), np.float32), *blocks])
    if vectors.ndim != 2:
        raise UserError(f"acquire.retriever: {encoder.name} makes several vectors a query; one is needed, as minilm makes it")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths, lengths, 1), dtype=np.float32)
