"""Dropout for the CPU: distribution of the masks, gradients, repeatability, and attention against the eager formula."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel

from uar.retrievers.dropout import LEVELS, FastDropout, dropout, kept_levels, random_bits, use_fast_dropout
from uar.retrievers.fast_attention import NAME, attention, fast_attention_forward

SIGMAS = 5.0


@pytest.mark.parametrize("p", [0.0001, 0.1, 0.5, 0.9, 0.9999])
def test_elements_are_dropped_with_their_probability(p: float) -> None:
    torch.manual_seed(0)
    count = 4_000_003
    dropped = (dropout(torch.ones(count), p) == 0).double()
    expected = 1 - kept_levels(p) / LEVELS
    assert abs(expected - p) <= 0.5 / LEVELS
    assert abs(float(dropped.mean()) - expected) < SIGMAS * (expected * (1 - expected) / count) ** 0.5


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 384])
def test_elements_are_dropped_independently(lag: int) -> None:
    torch.manual_seed(1)
    dropped = (dropout(torch.ones(2_000_000), 0.3) == 0).double() - 0.3
    pairs = dropped[lag:] * dropped[:-lag]
    assert abs(float(pairs.mean())) < SIGMAS * 0.3 * 0.7 / len(pairs) ** 0.5


def test_all_values_of_the_random_bits_are_equally_frequent() -> None:
    torch.manual_seed(2)
    for column in random_bits((500_000, 4)).int().unbind(1):  # each of the four parts of a number
        counts = torch.bincount((column + LEVELS // 2) >> 8, minlength=256).double()
        chi_squared = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert abs(chi_squared - 255) < SIGMAS * (2 * 255) ** 0.5


@pytest.mark.parametrize("p", [0.1, 0.75])
def test_the_expectation_is_kept(p: float) -> None:
    torch.manual_seed(3)
    values = torch.randn(64)
    draws = torch.stack([dropout(values, p) for _ in range(20_000)]).double()
    deviation = values.abs().double() * (p / (1 - p) / len(draws)) ** 0.5
    assert bool(((draws.mean(0) - values).abs() < SIGMAS * deviation + 1e-6).all())


def test_the_gradient_is_the_mask_over_the_probability_of_keeping() -> None:
    torch.manual_seed(4)
    values = (torch.rand(3, 5, 7) + 0.5).requires_grad_()
    out = dropout(values, 0.4)
    weights = torch.randn_like(out)
    out.backward(weights)
    kept = (out != 0).float() * (LEVELS / kept_levels(0.4))
    assert values.grad is not None
    torch.testing.assert_close(out, values * kept)
    torch.testing.assert_close(values.grad, weights * kept)


def test_gradients_agree_with_differences() -> None:
    values = torch.randn(4, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _seeded(lambda: dropout(x, 0.3)), values)


def test_the_module_follows_the_mode_and_the_seed() -> None:
    module, values = FastDropout(0.5), torch.randn(9, 33)
    first, again, other = _seeded(lambda: module(values)), _seeded(lambda: module(values)), module(values)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert module.eval()(values) is values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_format_and_the_layout_are_kept(dtype: torch.dtype) -> None:
    values = torch.ones(6, 10, dtype=dtype).t()
    out = dropout(values, 0.5)
    assert out.dtype == dtype and out.shape == values.shape
    assert set(out.unique().tolist()) == {0.0, 2.0}


def test_certain_and_nearly_certain_probabilities() -> None:
    values = torch.ones(100_000, requires_grad=True)
    assert dropout(values, 0.0) is values
    assert dropout(values, 1e-9) is values
    nothing = dropout(values, 1.0)
    nothing.sum().backward()
    assert not nothing.any() and values.grad is not None and not values.grad.any()
    rare = dropout(torch.ones(4_000_000), 1 - 1e-9)
    assert set(rare.unique().tolist()) == {0.0, float(LEVELS)}  # kept once in LEVELS: the expectation is that of the input


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        dropout(torch.ones(3), p)
    query = torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        attention(query, query, query, None, 1.0, p)
    with pytest.raises(ValueError, match="dropout probability"):
        FastDropout(p if p == p else 2.0)


@pytest.mark.parametrize("masked", ["none", "padding", "added"])
@pytest.mark.parametrize("texts", [1, 7])
def test_attention_without_dropout_is_the_eager_formula(masked: str, texts: int) -> None:
    torch.manual_seed(5)
    query, key, value = _states(texts)
    mask = _mask(masked, texts)
    added = 0.0 if mask is None else torch.where(mask, 0.0, -1e30) if mask.dtype == torch.bool else mask
    expected = (torch.softmax(query @ key.transpose(2, 3) * 0.2 + added, -1) @ value).transpose(1, 2)
    found = attention(query, key, value, mask, 0.2, 0.0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    weights = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, (query, key, value), weights)
    for one, other in zip(torch.autograd.grad(found, (query, key, value), weights), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_gradients_of_attention_with_dropout_agree_with_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uar.retrievers.fast_attention.BLOCK", 2 * 3 * 5 * 5)  # two texts at a time, then one
    states = tuple(torch.randn(3, 5, 3, 4, dtype=torch.double).transpose(1, 2).requires_grad_() for _ in range(3))
    mask = torch.ones(3, 1, 5, 5, dtype=torch.bool)
    mask[1, :, :, 3:] = False
    assert torch.autograd.gradcheck(lambda q, k, v: _seeded(lambda: attention(q, k, v, mask, 0.5, 0.3)), states)


def test_attention_drops_probabilities_and_keeps_their_expectation() -> None:
    torch.manual_seed(6)
    count, length = 4_000, 16
    query = torch.zeros(count, 2, length, length)  # every probability is 1 / length, and value shows each of them
    value = torch.eye(length).expand(count, 2, length, length)
    shown = attention(query, query, value, None, 1.0, 0.2).double() * length
    assert sorted({round(v, 3) for v in shown.unique().tolist()}) == [0.0, 1.25]
    deviation = (0.2 / 0.8 / shown.numel()) ** 0.5
    assert abs(float(shown.mean()) - 1) < SIGMAS * deviation
    for dimension in range(4):  # texts, queries, heads and keys are independent
        apart = shown - 1
        pairs = apart.narrow(dimension, 1, apart.shape[dimension] - 1) * apart.narrow(dimension, 0, apart.shape[dimension] - 1)
        assert abs(float(pairs.mean())) < SIGMAS * 0.25 / pairs.numel() ** 0.5


def test_attention_without_anything_kept_is_zero() -> None:
    query, key, value = _states(2)
    out = attention(query, key, value, None, 0.2, 1.0)
    out.sum().backward()
    assert out.shape == (2, 11, 3, 8) and not out.any()
    assert all(t.grad is not None and not t.grad.any() for t in (query, key, value))


def test_a_model_is_changed_in_place() -> None:
    model, plain = _model(0.1), _model(0.1)
    use_fast_dropout(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert model.config._attn_implementation == NAME
    assert not any(type(m) is nn.Dropout for m in model.modules())
    assert model.config.to_dict() == plain.config.to_dict()
    torch.testing.assert_close(_encode(model.eval()), _encode(plain.eval()))


def test_a_model_without_dropout_keeps_its_attention() -> None:
    model, plain = _model(0.0), _model(0.0)
    use_fast_dropout(model)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(_encode(model.train()), _encode(plain.train()))


def test_training_differs_by_seed_only_and_has_the_spread_of_torch() -> None:
    model, plain = _model(0.1).train(), _model(0.1).train()
    use_fast_dropout(model)
    assert torch.equal(_seeded(lambda: _encode(model)), _seeded(lambda: _encode(model)))
    with torch.no_grad():
        ours, theirs = (torch.stack([_encode(m) for _ in range(300)]).double() for m in (model, plain))
    difference = (ours.mean(0) - theirs.mean(0)).abs()
    assert float((difference / ((ours.var(0) + theirs.var(0)) / 300).sqrt()).max()) < SIGMAS + 1
    assert float(ours.var(0).mean() / theirs.var(0).mean()) == pytest.approx(1, abs=0.1)


def test_a_checkpoint_draws_the_same_masks_again() -> None:
    model = _model(0.2).train()
    use_fast_dropout(model)

    def gradients(run: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        model.zero_grad()
        _seeded(run).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients(lambda: _encode(model))
    replayed = gradients(lambda: checkpoint(_encode, model, use_reentrant=False))
    for one, other in zip(plain, replayed, strict=True):
        assert torch.equal(one, other)


def test_causal_attention_and_grouped_heads_are_left_to_torch() -> None:
    query, key, value = _states(2)
    module = nn.Module().train()
    module.is_causal, module.num_key_value_groups = True, 1
    causal, _ = fast_attention_forward(module, query, key, value, None, dropout=0.5)
    assert bool((causal[:, 0].flatten() == 0).any())  # the first token sees itself alone: kept or nothing
    first = causal[:, 0] / value[:, :, 0]
    assert bool(((first.abs() < 1e-6) | ((first - 2).abs() < 1e-4)).all())
    module.is_causal, module.num_key_value_groups = False, 3
    grouped, _ = fast_attention_forward(module, query, key[:, :1], value[:, :1], None, dropout=0.5)
    assert grouped.shape == causal.shape


def _seeded(run: Callable[[], torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(7)
    return run()


def _states(texts: int) -> tuple[torch.Tensor, ...]:
    """Query, key and value, laid out as the projections of a model leave them: (texts, 3 heads, 11 tokens, 8)."""
    return tuple(torch.randn(texts, 11, 3, 8).transpose(1, 2).requires_grad_() for _ in range(3))


def _mask(kind: str, texts: int) -> torch.Tensor | None:
    if kind == "none":
        return None
    if kind == "added":
        return torch.randn(texts, 3, 11, 11)
    lengths = torch.arange(texts) % 11 + 1
    return (torch.arange(11) < lengths[:, None])[:, None, None, :].expand(texts, 1, 11, 11)


def _model(p: float) -> BertModel:
    torch.manual_seed(8)
    sizes = {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    config = BertConfig(**sizes, hidden_dropout_prob=p, attention_probs_dropout_prob=p, attn_implementation="sdpa")
    return BertModel(config, add_pooling_layer=False)


def _encode(model: BertModel) -> torch.Tensor:
    """(2, 24) means over the tokens of two texts of different length."""
    ids = torch.arange(1, 19).view(2, 9)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
