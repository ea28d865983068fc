"""MarginMSE: the distances between positives and negatives are those of a teacher."""

import torch

from uar.losses.masking import at_least_fp32, mean_over_targeted, side_by_side


def margin_mse(
    scores: torch.Tensor,
    targets: torch.Tensor,
    valid: torch.Tensor,
    utility: torch.Tensor,
    utility_scale: float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean over rows of the mean over pairs (p, n) of ((s_p − s_n) − c (u_p − u_n))², c = `utility_scale` (MarginMSE,
    arXiv 2010.02666). Pairs are a target and a passage that is none, both of known utility.

    utility: (queries, passages), nan where unknown. Rows without a known utility are left out of the mean; a row without a
    pair adds 0.
    """
    known = valid & utility.isfinite()
    kept, score, wanted, positive = side_by_side(known, at_least_fp32(scores), at_least_fp32(utility), targets)
    surplus = (score - utility_scale * wanted).masked_fill(~kept, 0.0)
    pairs = (kept & positive)[:, :, None] & (kept & ~positive)[:, None, :]
    each = (surplus[:, :, None] - surplus[:, None, :]).square() * pairs
    rows = each.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)
    return mean_over_targeted(rows, known, weights)
