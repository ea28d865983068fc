"""LSEPair: a smooth bound on the worst pair of a positive and a negative."""

import torch
from torch.nn.functional import softplus

from uar.losses.masking import at_least_fp32, masked_logsumexp, mean_over_targeted


def lse_pair(
    scores: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted mean over rows of log(1 + Σ_p Σ_n exp(s_n − s_p)) (LSEPair, arXiv 2602.12727).

    The double sum is a product of sums: softplus(logsumexp(s_n) + logsumexp(−s_p)), so no matrix of pairs is made.
    """
    scores, targets = at_least_fp32(scores), targets & valid
    pairs = masked_logsumexp(scores, valid & ~targets) + masked_logsumexp(-scores, targets)
    return mean_over_targeted(softplus(pairs), targets, weights)
