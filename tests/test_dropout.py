"""Dropout for the CPU: distribution of the masks, gradients, repeatability, and attention against the eager formula."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel

from uar.retrievers.transformer import fast_attention
from uar.retrievers.transformer.dropout import LEVELS, FastDropout, dropout, kept_levels, random_bits, use_fast_dropout
from uar.retrievers.transformer.fast_attention import (
    NAME,
    attention,
    fast_attention_forward,
    hidden_states,
    use_fast_attention,
)

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
    states = torch.ones(2, 1, 2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        attention(states, states, states, [2], 1.0, p)
    with pytest.raises(ValueError, match="dropout probability"):
        FastDropout(p if p == p else 2.0)


@pytest.mark.parametrize("masked", ["none", "padding", "added"])
@pytest.mark.parametrize("texts", [1, 7])
def test_attention_without_dropout_is_the_eager_formula(masked: str, texts: int) -> None:
    torch.manual_seed(5)
    states, mask = _states(texts * 11), _mask(masked, texts)
    added = torch.zeros(()) if mask is None else torch.where(mask, 0.0, -1e30) if mask.dtype == torch.bool else mask
    expected = _eager(states, [11] * texts, added)
    _check_alike(attention(*states, [11] * texts, 0.2, 0.0, mask), expected, states)


@pytest.mark.parametrize("lengths", [[5], [7, 7, 7, 3, 3, 1], [1, 2, 3, 2, 2]])
def test_packed_texts_do_not_see_each_other(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_attention, "BLOCK", 2 * 3 * 7 * 7)  # two texts of seven tokens at a time, then one
    torch.manual_seed(5)
    states = _states(sum(lengths))
    expected = _eager(states, lengths, torch.zeros(()))
    _check_alike(attention(*states, lengths, 0.2, 0.0), expected, states)
    given = [t.transpose(0, 1)[None] for t in states]
    _check_alike(fast_attention_forward(nn.Module(), *given, None, scaling=0.2, text_lengths=lengths)[0][0], expected, states)


def test_gradients_of_attention_with_dropout_agree_with_differences() -> None:
    states = tuple(torch.randn(15, 3, 4, dtype=torch.double, requires_grad=True) for _ in range(3))
    mask = torch.ones(3, 1, 5, 5, dtype=torch.bool)
    mask[1, :, :, 3:] = False
    for lengths, seen in (([5] * 3, mask), ([6, 4, 4, 1], None)):
        assert torch.autograd.gradcheck(
            lambda q, k, v, ls=lengths, m=seen: _seeded(lambda: attention(q, k, v, ls, 0.5, 0.3, m)), states
        )


def test_attention_drops_probabilities_and_keeps_their_expectation() -> None:
    torch.manual_seed(6)
    count, length = 4_000, 16
    query = torch.zeros(count * length, 2, length)  # every probability is 1 / length, and value shows each of them
    value = torch.eye(length)[:, None].expand(length, 2, length).repeat(count, 1, 1)
    shown = attention(query, query, value, [length] * count, 1.0, 0.2).double().view(count, length, 2, length) * length
    assert sorted({round(v, 3) for v in shown.unique().tolist()}) == [0.0, 1.25]
    assert abs(float(shown.mean()) - 1) < SIGMAS * (0.2 / 0.8 / shown.numel()) ** 0.5
    apart = shown - 1
    for dimension in range(4):  # texts, queries, heads and keys are independent
        last = apart.shape[dimension] - 1
        pairs = apart.narrow(dimension, 1, last) * apart.narrow(dimension, 0, last)
        assert abs(float(pairs.mean())) < SIGMAS * 0.25 / pairs.numel() ** 0.5


def test_attention_without_anything_kept_is_zero() -> None:
    states = _states(22)
    out = attention(*states, [11, 11], 0.2, 1.0)
    out.sum().backward()
    assert not out.any() and all(t.grad is not None and not t.grad.any() for t in states)


def test_a_model_is_changed_in_place() -> None:
    model, plain = _model(0.1), _model(0.1)
    _use_fast(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert model.config._attn_implementation == NAME
    assert not any(type(m) is nn.Dropout for m in model.modules())
    assert model.config.to_dict() == plain.config.to_dict()
    torch.testing.assert_close(_encode(model.eval()), _encode(plain.eval()))


@pytest.mark.parametrize("attention_of", ["eager", "sdpa"])
def test_models_keep_an_attention_that_was_chosen(attention_of: str) -> None:
    model = _model(0.1)
    model.config._attn_implementation = attention_of
    _use_fast(model)
    assert model.config._attn_implementation == (NAME if attention_of == "sdpa" else "eager")


def test_without_dropout_packed_texts_have_the_states_and_gradients_of_padded_ones() -> None:
    model, plain = _model(0.0).train(), _model(0.0).train()
    _use_fast(model)
    found, expected = _encode(model), _encode(plain)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_packed_texts_in_bf16_have_the_vectors_of_padded_ones_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = _model(0.0).eval(), _model(0.0).eval()
    _use_fast(model)
    expected = _encode(plain)
    for block in (1, 1 << 18):  # every text a block of its own, and all texts of a length in one
        monkeypatch.setattr(fast_attention, "BLOCK", block)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = _encode(model).float()
        assert float((found - expected).norm() / expected.norm()) < 0.02


def test_training_differs_by_seed_only_and_has_the_spread_of_torch() -> None:
    model, plain = _model(0.1).train(), _model(0.1).train()
    _use_fast(model)
    assert torch.equal(_seeded(lambda: _encode(model)), _seeded(lambda: _encode(model)))
    with torch.no_grad():
        ours, theirs = (torch.stack([_encode(m) for _ in range(300)]).double() for m in (model, plain))
    difference = (ours.mean(0) - theirs.mean(0)).abs()
    assert float((difference / ((ours.var(0) + theirs.var(0)) / 300).sqrt()).max()) < SIGMAS + 1
    assert float(ours.var(0).mean() / theirs.var(0).mean()) == pytest.approx(1, abs=0.1)


def test_a_checkpoint_draws_the_same_masks_again() -> None:
    model = _model(0.2).train()
    _use_fast(model)

    def gradients(run: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        model.zero_grad()
        _seeded(run).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients(lambda: _encode(model))
    replayed = gradients(lambda: checkpoint(_encode, model, use_reentrant=False))
    for one, other in zip(plain, replayed, strict=True):
        assert torch.equal(one, other)


def test_causal_attention_and_grouped_heads_are_left_to_torch() -> None:
    query, key, value = (t.view(2, 11, 3, 8).transpose(1, 2) for t in _states(22))
    module = nn.Module().train()
    module.is_causal, module.num_key_value_groups = True, 1
    causal, _ = fast_attention_forward(module, query, key, value, None, dropout=0.5)
    first = causal[:, 0] / value[:, :, 0]  # the first token sees itself alone: kept and doubled, or nothing
    assert bool(((first.abs() < 1e-6) | ((first - 2).abs() < 1e-4)).all())
    module.is_causal, module.num_key_value_groups = False, 3
    grouped, _ = fast_attention_forward(module, query, key[:, :1], value[:, :1], None, dropout=0.5)
    assert grouped.shape == causal.shape


def _seeded(run: Callable[[], torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(7)
    return run()


def _states(tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value: (tokens, 3 heads, 8)."""
    query, key, value = (torch.randn(tokens, 3, 8, requires_grad=True) for _ in range(3))
    return query, key, value


def _eager(states: tuple[torch.Tensor, ...], lengths: list[int], added: torch.Tensor) -> torch.Tensor:
    out = []
    for number, (q, k, v) in enumerate(zip(*(t.split(lengths) for t in states), strict=True)):
        bias = added[number] if added.dim() else added
        weights = torch.softmax(torch.einsum("qhs,khs->hqk", q, k) * 0.2 + bias, -1)
        out.append(torch.einsum("hqk,khs->qhs", weights, v))
    return torch.cat(out)


def _check_alike(found: torch.Tensor, expected: torch.Tensor, states: tuple[torch.Tensor, ...]) -> None:
    """Values and gradients."""
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    weights = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, states, weights, retain_graph=True)
    for one, other in zip(torch.autograd.grad(found, states, weights), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


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
    """(2, 24) means over the tokens of two texts of different length, packed where the model can."""
    ids = torch.arange(1, 19).view(2, 9)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    hidden = hidden_states(model, ids, mask)
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _use_fast(model: nn.Module) -> None:
    use_fast_dropout(model)
    use_fast_attention(model)
