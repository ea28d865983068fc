"""Negative learning: what is surely useless is pushed away on top of what the positives pull."""

import torch

from uar.losses.masking import at_least_fp32, masked_logsumexp, mean_over_targeted
from uar.losses.summed_marginal import summed_marginal

LEAST = 1e-6  # of 1 - P, so that a certain and wrong model has a finite loss


def negative_learning(
    scores: torch.Tensor,
    targets: torch.Tensor,
    valid: torch.Tensor,
    chance: torch.Tensor,
    weights: torch.Tensor | None = None,
    strength: float = 0.4,
    below: float = 0.05,
) -> torch.Tensor:
    """SumMargLH + `strength` × weighted mean over rows of the mean of −log(1 − P(d)) over the passages d that are surely
    useless: those whose chance of being useful is `below` or less (MoLLIA, arXiv 2601.15773, where P
    is over classes; here it is over the passages of the softmax).

    chance: (queries, passages) from 0 to 1, nan where nobody said one. A row without a useless passage has the first part
    alone.
    """
    scores, targets = at_least_fp32(scores), targets & valid
    useless = (chance <= below) & valid & ~targets  # nan is not
    log_p = scores - masked_logsumexp(scores, valid)[:, None]
    away = -torch.log(torch.clamp(-torch.expm1(log_p.masked_fill(~useless, -1.0)), min=LEAST))
    number = useless.sum(dim=1)
    rows = torch.where(useless, away, 0.0).sum(dim=1) / number.clamp(min=1)
    pulled = summed_marginal(scores, targets, valid, weights)
    return pulled + strength * mean_over_targeted(rows, targets, weights)
