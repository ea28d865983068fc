"""Linear layers in 16 bits whose results keep 32: of numbers of 16 to 32 a rounded one knows steps of an eighth alone, so that
many texts would have the same score."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear


def unrounded(layer: nn.Linear, given: torch.Tensor) -> torch.Tensor:
    """(…, out) fp32, or fp64 of a layer in that, what a layer gives for (…, in), added up and kept in 32 bits."""
    half = layer.weight.dtype
    with torch.autocast(given.device.type, enabled=False):
        if given.is_cuda and half == given.dtype != torch.float32:
            sums = torch.mm(given.flatten(0, -2), layer.weight.T, out_dtype=torch.float32)
            sums = sums.view(*given.shape[:-1], -1)
            return sums if layer.bias is None else sums + layer.bias
        full = torch.promote_types(half, torch.float32)
        bias = None if layer.bias is None else layer.bias.to(full)
        with _products_in_bf16(half == given.dtype == torch.bfloat16):
            return linear(given.to(full), layer.weight.to(full), bias)


@contextmanager
def unrounded_results(layer: Any) -> Iterator[None]:
    """What a linear layer inside of a model gives is `unrounded` in the block; a layer of another kind is left as it is."""
    if type(layer) is not nn.Linear:
        yield
        return
    layer.forward = partial(unrounded, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward


@contextmanager
def _products_in_bf16(exact: bool) -> Iterator[None]:
    """fp32 products take numbers as bf16, which loses nothing where they are `exact` in it and is as fast on a CPU."""
    mkldnn: Any = torch.backends.mkldnn
    settings, before = mkldnn.matmul, mkldnn.matmul.fp32_precision
    settings.fp32_precision = "bf16" if exact else before
    try:
        yield
    finally:
        settings.fp32_precision = before
