"""What is positive, what may count and what is known to be useful, for the queries of a batch and passages of any device."""

import torch


def among(rows: torch.Tensor, listed: torch.Tensor) -> torch.Tensor:
    """(queries, passages) whether a passage is in the query's list; listed: (queries, most) corpus rows, padded with -2."""
    found = torch.zeros(len(listed), len(rows), dtype=torch.bool, device=rows.device)
    for column in listed.T:  # one at a time: queries x passages x most would be large
        found |= rows == column[:, None]
    return found


def utilities(rows: torch.Tensor, listed: torch.Tensor, utility: torch.Tensor) -> torch.Tensor:
    """(queries, passages) utility of a passage for a query, nan where there is none; listed, utility: (queries, most)."""
    found = torch.full((len(listed), len(rows)), torch.nan, device=rows.device)
    for column, value in zip(listed.T, utility.T, strict=True):
        found = torch.where(rows == column[:, None], value[:, None], found)
    return found


def close_to_positive(scores: torch.Tensor, targets: torch.Tensor, margin: float) -> torch.Tensor:
    """(queries, passages) whether a passage that is no target scores above the row's best target minus `margin`: perhaps a
    positive that nobody labelled (positive-aware mining, arXiv 2407.15831)."""
    best = scores.detach().masked_fill(~targets, -torch.inf).amax(dim=1, keepdim=True)
    return ~targets & (scores.detach() > best - margin)
