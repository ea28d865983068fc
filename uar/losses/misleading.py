"""The term for misleading texts: a passage prefers the text that describes it to texts that look like it and are false."""

import torch

from uar.losses.masking import at_least_fp32


def misleading(own: torch.Tensor, others: torch.Tensor, of: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean over queries of −log softmax of a query's own score among it and the misleading texts', all with its
    positive passage: the softmax of a retriever's loss, over texts in place of passages (the idea is that of arXiv 2305.12517,
    which takes a triplet loss). A query without misleading texts adds 0.

    own: (queries,) and others: (texts,) scores, already scaled; of: (texts,) the query of each; weights: (queries,) 0 or more.
    """
    own, others = at_least_fp32(own), at_least_fp32(others)
    least = torch.zeros_like(own).scatter_reduce(0, of, (others - own[of]).detach(), "amax")  # 0 is the own score's
    spread = torch.exp(-least).index_add(0, of, torch.exp(others - own[of] - least[of]))
    rows = least + spread.log()
    weight = weights.to(rows.dtype)
    total = weight.sum()
    return (weight * rows).sum() / torch.where(total > 0, total, 1.0)
