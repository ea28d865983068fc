"""From the vectors of a text's tokens to the vector of the text."""

import torch

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")  # sentence-transformers' names


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """(texts, dim) fp32; of several modes joined by `+`, their vectors one after the other.

    hidden: (texts, length, dim); mask: (texts, length), 1 at tokens, which come before the padding.
    """
    return torch.cat([_pool(hidden, mask, mode) for mode in how.split("+")], dim=1)


def _pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    if mode == "cls":
        return hidden[:, 0].float()
    if mode == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1].float()
    if mode == "max":
        return hidden.masked_fill(mask[..., None] == 0, -torch.inf).amax(1).float()
    weights = mask.float()
    if mode == "weightedmean":
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)
        hidden = hidden.float()  # a place in a long text is no bf16 number
    summed = (hidden * weights[..., None].to(hidden.dtype)).sum(1, dtype=torch.float32)
    total = weights.sum(1, keepdim=True)
    return summed / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)
