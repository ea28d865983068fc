"""Weights of queries in every loss: a weighted mean over rows."""

import math
from functools import partial

import pytest
import torch

import uar.losses
from uar.losses import Loss, contrastive, kl, name_of, takes_utility, takes_weights
from uar.losses.masking import mean_over_targeted

LOSSES: list[Loss] = [
    getattr(uar.losses, n) for n in ("contrastive", "joint", "kl", "lse_pair", "margin_mse", "rank_net", "summed_marginal")
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=name_of)


def case() -> tuple[torch.Tensor, ...]:
    """Scores, targets, valid, utility of 6 queries; the last has no target and no utility."""
    torch.manual_seed(0)
    scores, targets, valid = torch.randn(6, 9), torch.rand(6, 9) < 0.3, torch.rand(6, 9) < 0.9
    utility = torch.randn(6, 9)
    targets[:, 0], valid[:, 0] = True, True
    targets[5], utility[5] = False, torch.nan
    return scores, targets, valid, utility


def value(loss: Loss, weights: torch.Tensor | None, rows: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of some rows of the case, and its gradient."""
    scores, targets, valid, utility = (x[rows] for x in case())
    scores.requires_grad_()
    found = loss(scores, targets, valid, *([utility] if takes_utility(loss) else []), weights=weights)
    return found.detach(), torch.autograd.grad(found, scores)[0]


def plain_mean(rows: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The mean over rows as it is without weights."""
    targeted = targets.any(dim=1)
    return torch.where(targeted, rows, rows.new_zeros(())).sum() / targeted.sum().clamp(min=1)


@each_loss
def test_equal_weights_give_the_plain_mean_bit_for_bit(loss: Loss, monkeypatch: pytest.MonkeyPatch):
    found = [value(loss, weights) for weights in (None, torch.ones(6), torch.full((6,), 0.5), torch.full((6,), 4.0))]
    monkeypatch.setitem(loss.__globals__, "mean_over_targeted", plain_mean)
    expected, gradient = value(loss, None)
    assert expected > 0
    for scalar, slope in found:
        assert torch.equal(scalar, expected) and torch.equal(slope, gradient)


@each_loss
def test_a_row_counts_by_its_weight(loss: Loss):
    weights = torch.tensor([1.0, 0.0, 0.5, 3.0, 0.25, 7.0])  # the last says nothing
    alone = [value(loss, None, slice(row, row + 1)) for row in range(5)]
    total = 1 + 0.5 + 3 + 0.25
    found, gradient = value(loss, weights)
    expected = sum(w * scalar for w, (scalar, _) in zip(weights.tolist(), alone, strict=False)) / total
    assert found.item() == pytest.approx(float(expected), rel=1e-5)
    for row, (_, slope) in enumerate(alone):
        torch.testing.assert_close(gradient[row], weights[row] / total * slope[0])
    assert gradient[5].eq(0).all()


def test_the_gradient_of_a_weighted_mean_is_that_by_hand():
    scores = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [5.0, -5.0]], requires_grad=True)
    targets = torch.tensor([[True, False]] * 3)
    loss = contrastive(scores, targets, torch.ones_like(targets), weights=torch.tensor([0.5, 1.5, 0.0]))
    assert loss.item() == pytest.approx((0.5 * math.log(2) + 1.5 * math.log(4)) / 2)
    expected = torch.tensor([[-0.5 * 0.25, 0.5 * 0.25], [-0.75 * 0.75, 0.75 * 0.75], [0.0, 0.0]])
    torch.testing.assert_close(torch.autograd.grad(loss, scores)[0], expected)


def test_a_row_of_weight_0_does_not_count_whatever_its_loss():
    rows, targets = torch.tensor([2.0, torch.nan]), torch.ones(2, 1, dtype=torch.bool)
    assert mean_over_targeted(rows, targets, torch.tensor([0.5, 0.0])).item() == 2.0
    assert mean_over_targeted(rows, targets, torch.zeros(2)).item() == 0.0


def test_which_losses_take_weights_is_seen_through_their_options():
    assert all(takes_weights(loss) for loss in (*LOSSES, partial(kl, temperature=2.0)))
    assert not takes_weights(lambda scores, targets, valid: scores.sum())
