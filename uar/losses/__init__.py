"""Losses: pure functions of (scores, targets, valid, weights), computed in fp32; some take utilities as well.

scores: (queries, passages) similarities, already scaled; targets: (queries, passages) true for the positives of a row;
valid: (queries, passages) false where a passage must not count for a row; utility: (queries, passages) a grade, score or
log-likelihood, nan where nobody gave one; chance: a utility that is a probability; weights: (queries,) how much a row counts,
None for all alike. The loss is the weighted mean over rows, Σ w_i l_i / Σ w_i; rows that say nothing are left out of both
sums.
"""

import inspect
from collections.abc import Callable

import torch

from uar.losses.contrastive import contrastive
from uar.losses.joint import joint
from uar.losses.kl import kl
from uar.losses.kl_contrastive import kl_contrastive
from uar.losses.lse_pair import lse_pair
from uar.losses.margin_mse import margin_mse
from uar.losses.negative_learning import negative_learning
from uar.losses.rank_net import rank_net
from uar.losses.summed_marginal import summed_marginal

Loss = Callable[..., torch.Tensor]


def takes_utility(loss: Loss) -> bool:
    """Whether a loss learns from graded or soft labels, and so has the argument `utility`."""
    return "utility" in inspect.signature(loss).parameters


def learns_from_others(loss: Loss) -> bool:
    """Whether a loss learns from passages of other queries of the batch too: all do but those of utilities alone. One of
    utilities that does has the argument `others`."""
    return not takes_utility(loss) or "others" in inspect.signature(loss).parameters


def takes_chance(loss: Loss) -> bool:
    """Whether a loss of labels also looks at how probably a passage is useful, and so has the argument `chance`."""
    return "chance" in inspect.signature(loss).parameters


def takes_weights(loss: Loss) -> bool:
    """Whether a loss takes the weighted mean over rows, and so has the argument `weights`."""
    return "weights" in inspect.signature(loss).parameters


def name_of(loss: Loss) -> str:
    """What the config calls it."""
    return str(getattr(loss, "func", loss).__name__)


__all__ = [
    "Loss",
    "contrastive",
    "joint",
    "kl",
    "kl_contrastive",
    "learns_from_others",
    "lse_pair",
    "margin_mse",
    "name_of",
    "negative_learning",
    "rank_net",
    "summed_marginal",
    "takes_chance",
    "takes_utility",
    "takes_weights",
]
