"""Linear layers in 16 bits whose results keep 32: of numbers of 16 to 32 a rounded one knows steps of an eighth alone, so that
many texts would have the same score."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

UNROUNDED = "unrounded"  # in the keys of what is kept of such results, so that nothing kept of rounded ones is taken for it


def unrounded(layer: nn.Linear, given: torch.Tensor) -> torch.Tensor:
    """(…, out) fp32, or fp64 of a layer in that, what a layer gives for (…, in). On a CPU a layer in bf16 gives 16 bits, and
    then the first 8 of what they lack: the sums of a product are of 32 bits until all is added to them."""
    weight, bias = layer.weight, layer.bias
    full = torch.promote_types(weight.dtype, torch.float32)
    with torch.autocast(given.device.type, enabled=False):
        if weight.dtype in (full, torch.float16) or given.dtype != weight.dtype:
            return linear(given.to(full), weight.to(full), None if bias is None else bias.to(full))
        rows = given.flatten(0, -2)
        if given.is_cuda:
            sums = torch.mm(rows, weight.T, out_dtype=full)
        else:
            sums = rows @ weight.T
            sums = sums.to(full) + torch.addmm(-sums, rows, weight.T).detach().to(full)
        sums = sums.view(*given.shape[:-1], -1)
        return sums if bias is None else sums + bias


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
