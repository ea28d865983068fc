"""Regularisers of sparse vectors, from the mean vector of the texts of a step; weights are none below 0."""

from collections.abc import Callable

import torch

from uar.errors import UserError
from uar.retrievers.trainable import Exchange, first_places


def flops(mean: torch.Tensor) -> torch.Tensor:
    """Σ_j m_j², m_j being the mean weight of token j (arXiv 2004.05665): it counts the products that a search makes, so it
    presses most on tokens that many texts have."""
    return mean.square().sum()


def l1(mean: torch.Tensor) -> torch.Tensor:
    """Σ_j m_j: the mean, over texts, of the sum of a text's weights."""
    return mean.sum()


PENALTIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"flops": flops, "l1": l1}


def check_penalty(name: str, queries: float, passages: float, warmup: float) -> None:
    """UserError naming the option."""
    if name not in PENALTIES:
        raise UserError(f"retriever.penalty={name!r} is not known; allowed: {', '.join(PENALTIES)}")
    for option, value in (("query_penalty", queries), ("passage_penalty", passages)):
        if value < 0:
            raise UserError(f"retriever.{option}={value}: a number from 0 on is needed")
    if not 0 <= warmup <= 1:
        raise UserError(f"retriever.penalty_warmup={warmup}: a share of the steps from 0 to 1 is needed")


def mean_of_passages(passages: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(vocabulary,) of passages of all processes, each corpus row once; padding has a negative row."""
    return passages[first_places(rows)].mean(dim=0)


def mean_of_queries(queries: torch.Tensor, exchange: Exchange) -> torch.Tensor:
    """(vocabulary,) of the queries of all processes."""
    summed = torch.cat([queries.sum(dim=0), queries.new_tensor([len(queries)])])
    every = exchange(summed[None], torch.zeros(1, dtype=torch.long, device=queries.device), 1)[0].sum(dim=0)
    return every[:-1] / every[-1]
