"""The invariance term: however a question is worded, its scores should say the same."""

import torch

from uar.losses.masking import NOTHING, at_least_fp32


def invariance(scores: torch.Tensor, valid: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean over questions of 1/K Σ_k KL(sg[P̄] ‖ P_k): P_k = softmax of the scores of its k-th wording over the valid
    passages, P̄ = 1/K Σ_k P_k, through which no gradient goes. It is 0 where all wordings give the same scores. The idea is
    Invar-RAG's (arXiv 2411.07021), which publishes no formula; this form is uar's.

    scores: (wordings, questions, passages), already scaled; valid: (questions, passages); weights: (questions,) 0 or more.
    """
    found = at_least_fp32(scores).masked_fill(~valid, NOTHING).log_softmax(dim=-1)
    mean = found.detach().exp().mean(dim=0)
    each = (torch.special.xlogy(mean, mean) - mean * found).masked_fill(~valid, 0.0)
    rows = each.sum(dim=-1).mean(dim=0)
    weight = weights.to(rows.dtype)
    total = weight.sum()
    return (weight * rows).sum() / torch.where(total > 0, total, 1.0)
