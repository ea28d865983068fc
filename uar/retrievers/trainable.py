"""Retrievers that can be trained."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from uar.collections import Collection
from uar.collections.token_ids import Tokens
from uar.retrievers.ranker import Ranker
from uar.retrievers.weights import weights_hash
from uar.storage.files import digest


class Encoder(nn.Module, Ranker):
    """A ranker that represents a text by numbers and compares two texts by these alone, so that a corpus is encoded once.

    Training learns the parameters that require a gradient. It encodes a batch's queries and passages with `forward`, and
    its loss sees `scale` · `similarity`. As a ranker, it keeps representations of a corpus in shards of a session's vectors.
    """

    @abstractmethod
    def forward(self, texts: Sequence[np.ndarray], role: str = "passage", cached: bool = False) -> torch.Tensor:
        """(texts, …) fp32 representations of arrays of token ids, in the order given: one vector, many, or a sparse one of the
        vocabulary's size. Those of passages have one shape in all batches, since processes exchange them. `role`: query or
        passage. `cached`: do not keep activations, and compute them again for the gradient (GradCache, arXiv 2101.06983)."""

    @abstractmethod
    def similarity(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        """(queries, passages) scores of representations."""

    @property
    @abstractmethod
    def scale(self) -> float | torch.Tensor:
        """What training multiplies scores by (an inverse temperature)."""

    @abstractmethod
    def passage_tokens(self, collection: Collection) -> Tokens:
        """Token ids of every passage, by corpus row, made once."""

    @abstractmethod
    def query_tokens(self, collection: Collection) -> Tokens:
        """Token ids of the split's queries, by `collection.query_rows`, made once."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """A model folder that sentence-transformers and `retriever.model=` load."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Numbers of a vector."""

    @property
    @abstractmethod
    def vector_settings(self) -> tuple[object, ...]:
        """What changes the representations besides the weights and the token ids, such as the pooling."""

    def key(self, collection: Collection) -> str:
        return self.key_with(self.weights_key(), collection)

    def weights_key(self) -> str:
        """A hash of the weights and of what else changes the representations."""
        return weights_hash(self, *self.vector_settings)

    def key_with(self, weights: str, collection: Collection) -> str:
        """As `key`, of an encoder that differs from this one in its weights alone: their `weights_key`."""
        tokens = [self.passage_tokens(collection).key, self.query_tokens(collection).key]
        return digest(type(self).__qualname__, weights, tokens)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
