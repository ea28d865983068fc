"""Dropout that is cheap on a CPU.

torch draws one random number an element for a mask, on one thread, and its fused attention gives up where there is dropout:
together that can take longer than the layers between. In this module one 64-bit number decides over four elements, 16 bits
each; attention draws its mask beside the probabilities. Devices other than the CPU keep torch's kernels.

Seeds come from torch's default CPU generator, so `torch.manual_seed` repeats the masks, and so does `torch.utils.checkpoint`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

LEVELS = 1 << 16  # probabilities are multiples of 1 / LEVELS


def kept_levels(p: float) -> int:
    """How many of LEVELS keep an element that is dropped with probability `p`; 0 only where `p` is 1.

    Raises ValueError where `p` is no probability.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability {p}: a number from 0 to 1 is needed")
    return 0 if p == 1 else max(1, round((1 - p) * LEVELS))


def scale(levels: int) -> float:
    """What makes up for the dropped elements."""
    return LEVELS / levels if levels else 0.0


def random_bits(shape: Sequence[int]) -> torch.Tensor:
    """int16 of uniform random bits, by NumPy's fastest generator, seeded from torch's."""
    count = prod(shape)
    seed = torch.randint(torch.iinfo(torch.int64).max, (2,)).tolist()
    words = np.random.SFC64(seed).random_raw(-(-count // 4))
    return torch.from_numpy(words.view(np.int16))[:count].view(*shape)


def keep_mask(bits: torch.Tensor, levels: int, dtype: torch.dtype) -> torch.Tensor:
    """1 where an element is kept, which `levels` of the LEVELS values of `bits` say, else 0."""
    mask = torch.empty(bits.shape, dtype=dtype)
    return mask.fill_(1) if levels == LEVELS else torch.lt(bits, levels - LEVELS // 2, out=mask)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: torch.Tensor, levels: int) -> torch.Tensor:
        bits = random_bits(values.shape)
        context.save_for_backward(bits)
        context.levels = levels
        return _masked(values, bits, levels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (bits,) = context.saved_tensors
        return _masked(gradient, bits, context.levels), None


def _masked(values: torch.Tensor, bits: torch.Tensor, levels: int) -> torch.Tensor:
    return keep_mask(bits, levels, values.dtype).mul_(values).mul_(scale(levels))


def dropout(values: torch.Tensor, p: float) -> torch.Tensor:
    """`values`, on a CPU, with elements set to 0 with probability `p` and the others divided by 1 - p."""
    levels = kept_levels(p)
    return values if levels == LEVELS else _Dropout.apply(values, levels)


class FastDropout(nn.Dropout):
    """nn.Dropout with the masks of this module on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        return dropout(input, self.p)


def use_fast_dropout(encoder: nn.Module) -> None:
    """Change a model in place; parameters, their names and what a GPU computes stay as they are. Attention draws its own
    masks: see `fast_attention`."""
    replaced = [(parent, name, child) for parent in encoder.modules() for name, child in parent.named_children()]
    for parent, name, child in replaced:
        if type(child) is nn.Dropout:
            setattr(parent, name, FastDropout(child.p).train(child.training))
