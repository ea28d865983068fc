"""Masked log-sum-exp, the weighted mean over rows that count, and the judged passages of each row side by side."""

import torch

NOTHING = -1e30  # finite, so that a row without entries has a zero gradient instead of nan


def at_least_fp32(scores: torch.Tensor) -> torch.Tensor:
    """Half precision as fp32; fp32 and fp64 as they are."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def masked_logsumexp(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """(queries,) log Σ exp over kept entries; about -1e30 for a row that keeps none."""
    return torch.logsumexp(scores.masked_fill(~keep, NOTHING), dim=1)


def mean_over_targeted(rows: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Σ w_i l_i / Σ w_i of a (queries,) loss l over the rows that have a target; a differentiable 0 where none has.

    weights: (queries,) w, 0 or more; None is 1 for every row. Rows of weight 0 do not count.
    """
    weight = counted(targets, weights).to(rows.dtype)
    total = weight.sum()
    return torch.where(weight > 0, weight * rows, 0.0).sum() / torch.where(total > 0, total, 1.0)


def counted(targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """(queries,) fp32 weights of the rows that have a target, 0 for the others."""
    targeted = targets.any(dim=1)
    return targeted.float() if weights is None else torch.where(targeted, weights, 0.0)


def side_by_side(keep: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(queries, most kept) columns of `keep` and of each of `values`, the kept entries first: all pairs of a row's judged
    passages are few where its scores are many."""
    width = max(1, int(keep.sum(dim=1).max()))
    order = torch.argsort(keep.to(torch.uint8), dim=1, descending=True, stable=True)[:, :width]
    return tuple(v.gather(1, order) for v in (keep, *values))
