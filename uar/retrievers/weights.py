"""What tells the weights of two models apart."""

from typing import Any

import torch
from torch import nn

from uar.storage.files import digest

BLOCK = 1 << 22  # weights whose bits are summed at a time


@torch.inference_mode()
def weights_hash(model: nn.Module, *settings: object) -> str:
    """Of all weights, as sums of their bits, which overflow alike on any device and in any order; and of settings that change
    what is made of them. Adapters (LoRA) that add nothing yet, B being 0, do not count: their A is drawn at random."""
    weights = dict(model.named_parameters())
    silent = {name for name, weight in weights.items() if ".lora_B." in name and not weight.any()}
    silent |= {name.replace(".lora_B.", ".lora_A.") for name in silent}
    return digest({name: _bit_sums(w) for name, w in weights.items() if name not in silent}, *settings)


def _bit_sums(weight: torch.Tensor) -> list[Any]:
    """The dtype, the shape, and the sum of the bits, plain and by place, modulo 2^64."""
    numbers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    bits = weight.detach().contiguous().view(-1).view(numbers)
    plain = placed = 0
    for start in range(0, len(bits), BLOCK):
        part = bits[start : start + BLOCK].to(torch.int64)
        places = torch.arange(start + 1, start + 1 + len(part), device=part.device)
        plain, placed = plain + int(part.sum()), placed + int((part * places).sum())
    return [str(weight.dtype), list(weight.shape), plain % 2**64, placed % 2**64]
