import math
from collections.abc import Callable

import pytest
import torch

from uar.losses import contrastive, joint, lse_pair, summed_marginal

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
LOSSES = [contrastive, joint, lse_pair, summed_marginal]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


def case(scores: list, targets: list, valid: list | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tensor = torch.tensor(scores)
    kept = torch.ones(tensor.shape, dtype=torch.bool) if valid is None else torch.tensor(valid, dtype=torch.bool)
    return tensor, torch.tensor(targets, dtype=torch.bool), kept


def test_contrastive_is_the_negative_log_likelihood_of_the_positive():
    expected = (math.log(math.e + 1 + math.e**2) - 1 + math.log(1 + 1 + 1)) / 2
    assert contrastive(*case([[1.0, 0.0, 2.0], [5.0, 5.0, 5.0]], [[1, 0, 0], [0, 1, 0]])).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_contrastive_sets_each_of_several_positives_against_the_negatives_alone():
    first, second = math.log(1 + math.exp(0 - 2)), math.log(1 + math.exp(0 - 1))
    assert contrastive(*case([[2.0, 1.0, 0.0]], [[1, 1, 0]])).item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_summed_marginal_sums_the_likelihood_of_all_positives():
    total = math.e**2 + math.e + 1
    expected = -math.log((math.e**2 + math.e) / total)
    assert summed_marginal(*case([[2.0, 1.0, 0.0]], [[1, 1, 0]])).item() == pytest.approx(expected, rel=1e-5)


def test_joint_adds_the_likelihoods_of_all_positives():
    total = math.e**2 + math.e + 1
    expected = -math.log(math.e**2 / total) - math.log(math.e / total)
    assert joint(*case([[2.0, 1.0, 0.0]], [[1, 1, 0]])).item() == pytest.approx(expected, rel=1e-5)


def test_lse_pair_adds_up_all_pairs():
    expected = math.log(1 + sum(math.exp(n - p) for p in (2.0, 1.0) for n in (0.0, 0.5)))
    assert lse_pair(*case([[2.0, 1.0, 0.0, 0.5]], [[1, 1, 0, 0]])).item() == pytest.approx(expected, rel=1e-5)


def test_with_one_positive_a_row_all_losses_are_the_same():
    torch.manual_seed(0)
    scores, targets = torch.randn(5, 9), torch.eye(5, 9, dtype=torch.bool)
    valid = torch.ones_like(targets)
    values = [loss(scores, targets, valid) for loss in LOSSES]
    torch.testing.assert_close(torch.stack(values), values[0].expand(len(values)))


@each_loss
def test_an_invalid_passage_does_not_count(loss: Loss):
    with_it = loss(*case([[2.0, 1.0, 9.0]], [[1, 0, 0]], [[1, 1, 0]]))
    torch.testing.assert_close(with_it, loss(*case([[2.0, 1.0]], [[1, 0]])))


@each_loss
def test_a_row_without_positive_is_left_out_of_the_mean(loss: Loss):
    alone = loss(*case([[2.0, 1.0]], [[1, 0]]))
    torch.testing.assert_close(loss(*case([[2.0, 1.0], [7.0, 3.0]], [[1, 0], [0, 0]])), alone)


@each_loss
def test_without_any_positive_the_loss_is_a_differentiable_zero(loss: Loss):
    scores, targets, valid = case([[2.0, 1.0]], [[0, 0]])
    scores.requires_grad_()
    value = loss(scores, targets, valid)
    value.backward()
    assert value.item() == 0 and scores.grad is not None and scores.grad.eq(0).all()


@pytest.mark.parametrize("loss", [contrastive, lse_pair, summed_marginal])
def test_a_row_without_negative_gives_zero_and_a_zero_gradient(loss: Loss):
    scores, targets, valid = case([[2.0, 1.0]], [[1, 1]])
    scores.requires_grad_()
    value = loss(scores, targets, valid)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6) and scores.grad is not None and scores.grad.abs().max() < 1e-6


@each_loss
def test_gradients_are_those_of_finite_differences(loss: Loss):
    torch.manual_seed(1)
    targets = torch.rand(4, 7) < 0.3
    targets[:, 0] = True
    valid = (torch.rand(4, 7) < 0.8) | targets

    scores = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: loss(s, targets, valid), scores)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_scores_give_a_finite_loss_and_a_gradient(loss: Loss, dtype: torch.dtype, scale: float):
    scores = (torch.tensor([[-1.0, 1.0, 0.5, -0.5]]) * scale).to(dtype).requires_grad_()
    targets = torch.tensor([[True, False, False, True]])
    if scale < 0:
        targets = ~targets
    value = loss(scores, targets, torch.ones_like(targets))
    value.backward()
    assert torch.isfinite(value) and value > 1e3
    assert scores.grad is not None and torch.isfinite(scores.grad).all() and scores.grad.abs().max() > 0


def test_summed_marginal_equals_double_precision_arithmetic():
    torch.manual_seed(2)
    scores, targets = torch.randn(16, 64) * 30, torch.rand(16, 64) < 0.1
    targets[:, 0] = True
    double = scores.double()
    likelihood = double.softmax(1).masked_fill(~targets, 0).sum(1)
    expected = -likelihood.log().mean()
    assert summed_marginal(scores, targets, torch.ones_like(targets)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_summed_marginal_learns_where_a_clamped_likelihood_has_no_gradient():
    scores = torch.tensor([[-40.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[True, False, False]])
    clamped = -(scores.softmax(1) * targets).sum(1).clamp(1e-9).log().mean()
    assert torch.autograd.grad(clamped, scores)[0].abs().max() == 0
    exact = summed_marginal(scores, targets, torch.ones_like(targets))
    assert torch.autograd.grad(exact, scores)[0][0, 0].item() == pytest.approx(-1.0)
