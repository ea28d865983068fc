"""REPLUG's loss, which also distils a teacher: the retriever's distribution is drawn to that of the utilities."""

import torch

from uar.losses.masking import NOTHING, at_least_fp32, mean_over_targeted


def kl(
    scores: torch.Tensor,
    targets: torch.Tensor,
    valid: torch.Tensor,
    utility: torch.Tensor,
    temperature: float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean over rows of KL(U ‖ R), U = softmax(utility / `temperature`), R = softmax(scores), both over the passages
    of the row whose utility is known (REPLUG, arXiv 2301.12652, as in arXiv 2504.05220).

    utility: (queries, passages), nan where unknown. Rows without a known utility are left out of the mean.
    """
    known = valid & utility.isfinite()
    return mean_over_targeted(kl_of_rows(scores, known, utility, temperature), known, weights)


def kl_of_rows(scores: torch.Tensor, known: torch.Tensor, utility: torch.Tensor, temperature: float) -> torch.Tensor:
    """(queries,) KL(U ‖ R) over the passages that are `known`."""
    wanted = (at_least_fp32(utility) / temperature).masked_fill(~known, NOTHING).log_softmax(dim=1)
    found = at_least_fp32(scores).masked_fill(~known, NOTHING).log_softmax(dim=1)
    each = (wanted.exp() * (wanted - found)).masked_fill(~known, 0.0)
    return each.sum(dim=1)
