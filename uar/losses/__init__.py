"""Losses: pure functions of (scores, targets, valid), computed in fp32; some take a fourth argument, utility.

scores: (queries, passages) similarities, already scaled; targets: (queries, passages) true for the positives of a row;
valid: (queries, passages) false where a passage must not count for a row; utility: (queries, passages) a grade, score or
log-likelihood, nan where nobody gave one. Rows that say nothing are left out of the mean.
"""

import inspect
from collections.abc import Callable

import torch

from uar.losses.contrastive import contrastive
from uar.losses.joint import joint
from uar.losses.kl import kl
from uar.losses.lse_pair import lse_pair
from uar.losses.margin_mse import margin_mse
from uar.losses.rank_net import rank_net
from uar.losses.summed_marginal import summed_marginal

Loss = Callable[..., torch.Tensor]


def takes_utility(loss: Loss) -> bool:
    """Whether a loss learns from graded or soft labels, and so has the fourth argument."""
    return "utility" in inspect.signature(loss).parameters


def name_of(loss: Loss) -> str:
    """What the config calls it."""
    return str(getattr(loss, "func", loss).__name__)


__all__ = [
    "Loss",
    "contrastive",
    "joint",
    "kl",
    "lse_pair",
    "margin_mse",
    "name_of",
    "rank_net",
    "summed_marginal",
    "takes_utility",
]
