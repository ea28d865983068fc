"""Queries without a model: the weight of a token of the vocabulary, fixed or learnt, wherever it occurs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from uar.collections import open_collection
from uar.collections.token_ids import corpus_tokens
from uar.errors import UserError
from uar.storage.files import read_json

FASTER = 50.0  # a step moves learnt weights so many times as far as those of a transformer: 1e-3 where it learns with 2e-5


class TokenWeights(nn.Module):
    """weights: (vocabulary,), none below 0; `learn`: whether training changes them."""

    def __init__(self, weights: torch.Tensor, learn: bool) -> None:
        super().__init__()
        self.parts = nn.Parameter(weights.float() / FASTER, requires_grad=learn)

    def now(self) -> torch.Tensor:
        """(vocabulary,) fp32"""
        return self.parts.relu() * FASTER

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, pad: int) -> torch.Tensor:
        """(texts, vocabulary): the weight of a token that occurs in the text, however often; `pad` never does."""
        there = torch.zeros(len(ids), len(self.parts), device=ids.device).scatter_(1, ids, mask.float())
        there[:, pad] = 0
        return there * self.now()


def read_weights(given: str, tokenizer: Any, size: int, length: int) -> torch.Tensor:
    """(size,) from a JSON file of weights by token, tokens that it lacks having 0; or how rare each token is in the passages
    of a collection, cut at `length` tokens: log(1 + (N - n + ½) / (n + ½)) where n of N have it, the idf of BM25."""
    if Path(given).suffix == ".json":
        return _of_file(Path(given), tokenizer, size)
    tokens = corpus_tokens(open_collection(given), tokenizer, length, bare=True)
    having = np.zeros(size)
    for row in range(len(tokens)):
        having[np.unique(tokens[row])] += 1
    return torch.from_numpy(np.log1p((len(tokens) - having + 0.5) / (having + 0.5))).float()


def _of_file(path: Path, tokenizer: Any, size: int) -> torch.Tensor:
    if not path.is_file():
        raise UserError(f"retriever.query_weights={path}: no such file; give an idf.json, or a collection such as mini:train")
    read, vocabulary = read_json(path), tokenizer.get_vocab()
    if not isinstance(read, dict) or not all(isinstance(weight, int | float) and weight >= 0 for weight in read.values()):
        raise UserError(f"retriever.query_weights={path}: it has no weights from 0 on by token; give a file of such")
    strange = [token for token in read if token not in vocabulary]
    if strange:
        raise UserError(
            f"retriever.query_weights={path}: {len(strange)} of its {len(read)} tokens, such as {strange[0]!r}, are none of "
            "the model's; give the file of its own vocabulary"
        )
    weights = torch.zeros(size)
    for token, weight in read.items():
        weights[vocabulary[token]] = weight
    return weights
