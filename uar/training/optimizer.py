"""Which optimizer a stage has: fused where gradients can be cut all the same, with weight decay on matrices alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn


def fused(optimizer: partial, precision: str) -> partial:
    """`optimizer`, a partial that takes parameters, as torch's fused one where it is AdamW: many times as fast on a CPU. It
    stays in fp16, where the fused one would take the scale off gradients after they were cut. `precision`: `precision_of`."""
    if optimizer.func is not torch.optim.AdamW or precision in ("fp16", "16-mixed"):
        return optimizer
    return partial(optimizer, fused=True)


def parameter_groups(parameters: Sequence[nn.Parameter], optimizer: partial) -> list[Any]:
    """What the optimizer is given: biases, weights of layer norms and a learned scale are not decayed."""
    if not optimizer.keywords.get("weight_decay"):
        return list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
