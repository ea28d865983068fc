"""From the vectors of a text's tokens to the vector of the text."""

import torch

POOLINGS = ("cls", "mean", "lasttoken")


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """(texts, dim) fp32. hidden: (texts, length, dim); mask: (texts, length), 1 at tokens, which come before the padding."""
    if how == "cls":
        return hidden[:, 0].float()
    if how == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1].float()
    summed = (hidden * mask[..., None].to(hidden.dtype)).sum(1, dtype=torch.float32)
    return summed / mask.sum(1, keepdim=True)
