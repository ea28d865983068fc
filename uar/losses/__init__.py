"""Losses: pure functions of (scores, targets, valid), computed in fp32.

scores: (queries, passages) similarities, already scaled; targets: (queries, passages) true for the positives of a row;
valid: (queries, passages) false where a passage must not count for a row. Rows without a target are left out of the mean.
"""

from uar.losses.contrastive import contrastive
from uar.losses.summed_marginal import summed_marginal

__all__ = ["contrastive", "summed_marginal"]
