"""JointLH: the likelihood of every positive."""

import torch

from uar.losses.masking import at_least_fp32, masked_logsumexp, mean_over_targeted


def joint(
    scores: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted mean over rows of −Σ_{d⁺} log P(d⁺) (JointLH, arXiv 2504.05220), P the softmax over positives and negatives.

    Every positive must get its share of the mass, the wrongly labelled ones too.
    """
    scores, targets = at_least_fp32(scores), targets & valid
    each = (masked_logsumexp(scores, valid)[:, None] - scores).masked_fill(~targets, 0.0)
    return mean_over_targeted(each.sum(dim=1), targets, weights)
