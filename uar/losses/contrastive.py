"""SingleLH and Rand1LH: the likelihood of one positive against the negatives."""

import torch
from torch.nn.functional import softplus

from uar.losses.masking import at_least_fp32, masked_logsumexp, mean_over_targeted


def contrastive(
    scores: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted mean over rows of −log( exp(s⁺) / (exp(s⁺) + Σ exp(s⁻)) ), the SingleLH of arXiv 2504.05220; with a positive
    drawn anew each epoch (`positives=one`) its Rand1LH.

    A row with several targets takes the mean over them, each against the negatives alone. Computed as
    softplus(logsumexp(s⁻) − s⁺), which neither overflows nor loses its gradient.
    """
    scores, targets = at_least_fp32(scores), targets & valid
    negatives = masked_logsumexp(scores, valid & ~targets)
    each = softplus(negatives[:, None] - scores) * targets
    return mean_over_targeted(each.sum(dim=1) / targets.sum(dim=1).clamp(min=1), targets, weights)
