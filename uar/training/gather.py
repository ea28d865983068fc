"""Passages of all devices for every device: vectors with their gradient, so that negatives cross devices exactly.

Each process keeps its own query rows and its own loss, the weighted mean over those of its rows that count. Scaled by
`mean_of_rows`, and with the mean of gradients that DDP takes, the result is the gradient of the weighted mean over the rows of
all processes.
"""

from typing import Any

import torch
import torch.distributed as dist


def gather_passages(vectors: torch.Tensor, rows: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """vectors: (passages, …), rows: (passages,) corpus rows -> the same of all processes, in rank order.

    Processes may bring different numbers of passages, `most` at most, and are padded to it with row -1: to ask each other how
    many there are would wait for the GPU.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return vectors, rows
    missing = most - len(rows)
    if missing < 0:
        raise ValueError(f"{len(rows)} passages, and at most {most} were said")
    vectors = torch.cat([vectors, vectors.new_zeros(missing, *vectors.shape[1:])])
    rows = torch.cat([rows, rows.new_full((missing,), -1)])
    all_rows = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(all_rows, rows)
    return _Gather.apply(vectors), torch.cat(all_rows)


def mean_of_rows(loss: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """loss: the mean over this process' rows, which have `weight` in all -> what this process takes the gradient of, and the
    mean over the rows of all processes, without gradient and the same everywhere."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return loss, loss.detach()
    sums = torch.stack([weight, weight * loss.detach()])
    dist.all_reduce(sums)
    total = torch.where(sums[0] > 0, sums[0], 1.0)
    return loss * (weight * dist.get_world_size() / total), sums[1] / total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, own: torch.Tensor) -> torch.Tensor:
        context.size = len(own)
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)  # every process' loss looks at these passages
        start = dist.get_rank() * context.size
        return total[start : start + context.size]
