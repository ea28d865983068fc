"""Whether a retriever is a bi-encoder, told without importing torch for the others."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from uar.retrievers.bi_encoder.encoder import BiEncoder


def is_bi_encoder(retriever: Any) -> "TypeGuard[BiEncoder]":
    """Where the module was never imported there is no bi-encoder."""
    module = sys.modules.get("uar.retrievers.bi_encoder.encoder")
    return module is not None and isinstance(retriever, module.BiEncoder)
