"""SumMargLH: the summed likelihood of all positives."""

import torch

from uar.losses.masking import masked_logsumexp, mean_over_targeted


def summed_marginal(scores: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean over rows of −log Σ_{d⁺} P(d⁺) (SumMargLH, arXiv 2504.05220), as logsumexp(all) − logsumexp(positives).

    The model may put its mass on whichever positive it believes, so that a wrong one among several does little harm.
    """
    scores, targets = scores.float(), targets & valid
    rows = masked_logsumexp(scores, valid) - masked_logsumexp(scores, targets)
    return mean_over_targeted(rows, targets)
