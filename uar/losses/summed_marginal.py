"""SumMargLH: the summed likelihood of all positives."""

import torch

from uar.losses.masking import at_least_fp32, masked_logsumexp, mean_over_targeted


def summed_marginal(
    scores: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted mean over rows of −log Σ_{d⁺} P(d⁺) (SumMargLH, arXiv 2504.05220), as logsumexp(all) − logsumexp(positives).

    The model may put its mass on whichever positive it believes, so that a wrong one among several does little harm.
    """
    scores, targets = at_least_fp32(scores), targets & valid
    rows = masked_logsumexp(scores, valid) - masked_logsumexp(scores, targets)
    return mean_over_targeted(rows, targets, weights)
