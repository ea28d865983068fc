"""RankNet: pairs of passages in the order of their grades."""

import torch
from torch.nn.functional import softplus

from uar.losses.masking import at_least_fp32, mean_over_targeted, side_by_side


def rank_net(
    scores: torch.Tensor,
    targets: torch.Tensor,
    valid: torch.Tensor,
    utility: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean over rows of the mean over pairs with u_i > u_j of log(1 + exp(s_j − s_i)) (RankNet, Burges et al., ICML
    2005, eq. 3 with certain preferences).

    utility: (queries, passages) grades or scores, nan where unknown. Rows without a known utility are left out of the mean; a
    row whose passages are all alike adds 0.
    """
    known = valid & utility.isfinite()
    kept, score, grade = side_by_side(known, at_least_fp32(scores), at_least_fp32(utility))
    pairs = kept[:, :, None] & kept[:, None, :] & (grade[:, :, None] > grade[:, None, :])
    each = softplus(score[:, None, :] - score[:, :, None]) * pairs
    rows = each.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)
    return mean_over_targeted(rows, known, weights)
