"""Two processes with batch B give the gradient of one process with batch 2B."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from uar.losses import contrastive, summed_marginal
from uar.training.batches import Batch, masks
from uar.training.gather import gather_passages

LOSSES = {f.__name__: f for f in (contrastive, summed_marginal)}
ROWS = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 1, 5])]  # passage 1 on both, uneven numbers
TARGETS = [torch.tensor([[0, -2], [1, 2]]), torch.tensor([[4, -2], [1, 5]])]


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(4, 8, dtype=torch.float32), torch.randn(6, 8), torch.randn(8, 8)


def batch(targets: torch.Tensor) -> Batch:
    return Batch(["q"] * len(targets), [], [], torch.tensor([]), targets, targets)


def worker(rank: int, place: str, loss: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{place}/init", rank=rank, world_size=2)
    queries, passages, weight = inputs()
    weight.requires_grad_()
    mine = queries[rank * 2 : rank * 2 + 2] @ weight
    vectors, rows = gather_passages(passages[ROWS[rank]] @ weight, ROWS[rank])
    LOSSES[loss](mine @ vectors.T, *masks(batch(TARGETS[rank]), rows)).backward()
    dist.all_reduce(weight.grad)
    torch.save(weight.grad / 2, f"{place}/grad{rank}")
    dist.destroy_process_group()


@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_give_the_gradient_of_one(tmp_path: Path, loss: str):
    mp.spawn(worker, args=(str(tmp_path), loss), nprocs=2)
    queries, passages, weight = inputs()
    weight.requires_grad_()
    rows = torch.arange(6)
    scores = (queries @ weight) @ (passages @ weight).T
    LOSSES[loss](scores, *masks(batch(torch.cat(TARGETS)), rows)).backward()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"grad{rank}"), weight.grad, rtol=1e-5, atol=1e-6)
