"""Distillation with in-batch negatives: a teacher orders the passages of a pool, and all others of the batch are put below."""

import torch
from torch.nn.functional import softplus

from uar.losses.kl import kl_of_rows
from uar.losses.masking import at_least_fp32, masked_logsumexp, mean_over_targeted


def kl_contrastive(
    scores: torch.Tensor,
    targets: torch.Tensor,
    valid: torch.Tensor,
    utility: torch.Tensor,
    temperature: float = 1.0,
    others: float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean over rows of KL(U ‖ R) + `others` · −log( exp(s⁺) / (exp(s⁺) + Σ exp(s⁻)) ): `kl` over the passages of
    known utility, and `contrastive` of the positive against those of unknown one, which are of other queries of the batch or
    drawn from the corpus (ColBERTv2, arXiv 2112.01488, 3.2). With `others` = 0 it is `kl`.

    A row with several targets takes the mean over them. Rows without a known utility are left out of the mean; a row without a
    target of known utility has the first term alone.
    """
    scores, known = at_least_fp32(scores), valid & utility.isfinite()
    positive = targets & known
    negatives = masked_logsumexp(scores, valid & ~known & ~targets)
    each = (softplus(negatives[:, None] - scores) * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return mean_over_targeted(kl_of_rows(scores, known, utility, temperature) + others * each, known, weights)
