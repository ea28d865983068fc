"""Losses that learn from grades and scores."""

import math
from functools import partial

import pytest
import torch

from uar.losses import (
    Loss,
    kl,
    kl_contrastive,
    learns_from_others,
    margin_mse,
    name_of,
    rank_net,
    summed_marginal,
    takes_utility,
)

LOSSES = [kl, kl_contrastive, margin_mse, rank_net]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
NAN = math.nan


def value(loss: Loss, scores: list, utility: list, targets: list | None = None, valid: list | None = None) -> float:
    s, u = torch.tensor(scores), torch.tensor(utility)
    t = torch.tensor(targets, dtype=torch.bool) if targets else u == u.nan_to_num(-1e9).amax(1, keepdim=True)
    v = torch.tensor(valid, dtype=torch.bool) if valid else torch.ones_like(t)
    return loss(s, t, v, u).item()


def test_kl_is_the_divergence_of_the_retriever_from_the_utilities():
    u = [math.exp(1) / (math.exp(1) + 1), 1 / (math.exp(1) + 1)]
    expected = sum(p * math.log(p / 0.5) for p in u)
    assert value(kl, [[3.0, 3.0]], [[1.0, 0.0]]) == pytest.approx(expected, rel=1e-5)
    assert value(kl, [[5.0, 4.0]], [[1.0, 0.0]]) == pytest.approx(0, abs=1e-7)


def test_the_temperature_of_kl_sharpens_the_utilities():
    sharp = value(partial(kl, temperature=0.1), [[3.0, 3.0]], [[0.1, 0.0]])
    assert sharp == pytest.approx(value(kl, [[3.0, 3.0]], [[1.0, 0.0]]), rel=1e-5)


def test_kl_contrastive_puts_unjudged_passages_below_the_best_and_lets_the_teacher_order_the_others():
    scores, utility = [[2.0, 1.0, 0.5, 3.0]], [[1.0, 0.0, NAN, NAN]]
    pool = value(kl, [[2.0, 1.0]], [[2.0, 0.0]])
    below = -math.log(math.exp(2) / (math.exp(2) + math.exp(0.5) + math.exp(3)))
    sharp = partial(kl_contrastive, temperature=0.5)
    assert value(sharp, scores, utility) == pytest.approx(pool + below, rel=1e-5)
    assert value(partial(sharp, others=0.3), scores, utility) == pytest.approx(pool + 0.3 * below, rel=1e-5)
    assert value(partial(sharp, others=0.0), scores, utility) == pytest.approx(pool, rel=1e-5)
    alone = -math.log(math.exp(2) / (math.exp(2) + math.exp(0.5)))
    assert value(sharp, scores, utility, valid=[[1, 1, 1, 0]]) == pytest.approx(pool + alone, rel=1e-5)
    assert value(sharp, scores, utility, targets=[[0, 0, 0, 0]]) == pytest.approx(pool, rel=1e-5)
    two = (below - math.log(math.exp(1) / (math.exp(1) + math.exp(0.5) + math.exp(3)))) / 2
    assert value(sharp, scores, utility, targets=[[1, 1, 0, 0]]) == pytest.approx(pool + two, rel=1e-5)
    assert [learns_from_others(loss) for loss in (kl, rank_net, sharp, summed_marginal)] == [False, False, True, True]


def test_margin_mse_compares_the_distances_of_positives_and_negatives():
    expected = (((2.0 - 0.5) - (3.0 - 1.0)) ** 2 + ((2.0 - 0.0) - (3.0 - 2.5)) ** 2) / 2
    assert value(margin_mse, [[2.0, 0.5, 0.0]], [[3.0, 1.0, 2.5]]) == pytest.approx(expected, rel=1e-5)
    double = partial(margin_mse, utility_scale=2.0)
    assert value(double, [[4.0, 0.0]], [[2.0, 0.0]]) == pytest.approx(0, abs=1e-7)


def test_rank_net_looks_at_every_pair_of_different_grades():
    pairs = [(2.0, 0.5), (2.0, 0.0)]  # the last two are alike
    expected = sum(math.log(1 + math.exp(low - high)) for high, low in pairs) / 2
    assert value(rank_net, [[2.0, 0.5, 0.0]], [[3.0, 1.0, 1.0]]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if not learns_from_others(loss)], ids=name_of)
def test_passages_without_utility_or_not_valid_do_not_count(loss: Loss):
    alone = value(loss, [[2.0, 0.5]], [[3.0, 1.0]])
    assert value(loss, [[9.0, 2.0, 0.5]], [[NAN, 3.0, 1.0]]) == pytest.approx(alone)
    assert value(loss, [[2.0, 9.0, 0.5]], [[3.0, 0.0, 1.0]], valid=[[1, 0, 1]]) == pytest.approx(alone)


@each_loss
def test_a_row_without_utilities_is_left_out_and_gives_no_gradient(loss: Loss):
    alone = value(loss, [[2.0, 0.5]], [[3.0, 1.0]])
    assert value(loss, [[2.0, 0.5], [7.0, 1.0]], [[3.0, 1.0], [NAN, NAN]]) == pytest.approx(alone)
    scores = torch.tensor([[2.0, 0.5]], requires_grad=True)
    nothing = loss(scores, torch.tensor([[True, False]]), torch.ones(1, 2, dtype=torch.bool), torch.full((1, 2), NAN))
    nothing.backward()
    assert nothing.item() == 0 and scores.grad is not None and scores.grad.eq(0).all()


@each_loss
def test_gradients_are_those_of_finite_differences(loss: Loss):
    torch.manual_seed(1)
    utility = torch.randint(0, 4, (4, 7)).double()
    utility[torch.rand(4, 7) < 0.3] = NAN
    utility[:, :2] = torch.tensor([3.0, 0.0], dtype=torch.float64)
    targets, valid = utility == 3, torch.rand(4, 7) < 0.9
    scores = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: loss(s, targets, valid, utility), scores)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores_give_a_finite_loss_and_a_gradient(loss: Loss, dtype: torch.dtype):
    scores = torch.tensor([[-1e4, 1e4, 0.0]], dtype=dtype, requires_grad=True)
    utility = torch.tensor([[3.0, 0.0, 1.0]], dtype=dtype)
    found = loss(scores, utility == 3, torch.ones(1, 3, dtype=torch.bool), utility)
    found.backward()
    assert torch.isfinite(found) and found > 1e3
    assert scores.grad is not None and torch.isfinite(scores.grad).all() and scores.grad.abs().max() > 0


def test_which_losses_take_utilities_is_seen_through_their_options():
    assert [takes_utility(x) for x in (kl, partial(margin_mse, utility_scale=2.0), summed_marginal)] == [True, True, False]
    assert name_of(partial(kl, temperature=2.0)) == "kl" and name_of(rank_net) == "rank_net"
