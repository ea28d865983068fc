"""Attention for training on a CPU: with dropout, and over texts packed behind each other, so that nothing is padded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from uar.retrievers.transformer.dropout import keep_mask, kept_levels, random_bits, scale

NAME = "sdpa_or_fast"
BLOCK = 1 << 18  # probabilities that are worked on at a time: 1 MiB of fp32, so that they stay in the cache


@dataclass(frozen=True)
class _Block:
    """Texts of one length that lie behind each other from token `start` on; the first is number `number`."""

    number: int
    start: int
    texts: int
    length: int

    def of(self, states: torch.Tensor) -> torch.Tensor:
        """(tokens, heads, size) -> these texts as (texts · heads, length, size)."""
        return self._own(states).transpose(1, 2).flatten(0, 1)

    def put(self, states: torch.Tensor, values: torch.Tensor) -> None:
        """The inverse of `of`."""
        self._own(states).copy_(values.unflatten(0, (self.texts, -1)).transpose(1, 2))

    def _own(self, states: torch.Tensor) -> torch.Tensor:
        return states[self.start : self.start + self.texts * self.length].unflatten(0, (self.texts, self.length))


def _blocks(lengths: Sequence[int], heads: int) -> Iterator[_Block]:
    number = start = 0
    for length, run in groupby(lengths):
        left, most = len(list(run)), max(1, BLOCK // (heads * length**2))
        while left:
            block = _Block(number, start, min(left, most), length)
            yield block
            left, number, start = left - block.texts, number + block.texts, start + block.texts * length


class _Attention(torch.autograd.Function):
    """query, key, value: (tokens, heads, size); bias: (texts, 1 or heads, length, length), added to the scores, or None."""

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        lengths: Sequence[int],
        scaling: float,
        levels: int,
    ) -> torch.Tensor:
        heads = query.shape[1]
        blocks = list(_blocks(lengths, heads))
        bits = random_bits((sum(b.texts * heads * b.length**2 for b in blocks),))
        out, kept_bits, probabilities, at = torch.empty_like(value), [], [], 0
        for block in blocks:
            q, k = block.of(query), block.of(key)
            scores = query.new_empty(len(q), block.length, block.length)
            torch.baddbmm(scores, q, k.transpose(1, 2), beta=0, alpha=scaling, out=scores)
            if bias is not None:
                scores.unflatten(0, (block.texts, heads)).add_(bias[block.number : block.number + block.texts])
            torch.softmax(scores, -1, out=scores)
            own = bits[at : at + scores.numel()].view(scores.shape)
            at += scores.numel()
            block.put(out, torch.bmm(keep_mask(own, levels, scores.dtype).mul_(scores), block.of(value)))
            probabilities.append(scores)
            kept_bits.append(own)
        context.save_for_backward(query, key, value, *probabilities, *kept_bits)
        context.blocks, context.scaling, context.levels = blocks, scaling, levels
        return out.mul_(scale(levels))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *saved = context.saved_tensors
        to_query, to_key, to_value = (torch.empty(t.shape, dtype=t.dtype) for t in (query, key, value))
        gradient = gradient * scale(context.levels)
        half = len(context.blocks)
        for block, p, bits in zip(context.blocks, saved[:half], saved[half:], strict=True):
            to_out = block.of(gradient)
            kept = keep_mask(bits, context.levels, p.dtype)
            to_p = torch.bmm(to_out, block.of(value).transpose(1, 2)).mul_(kept)
            block.put(to_value, torch.bmm(kept.mul_(p).transpose(1, 2), to_out))
            to_scores = torch._softmax_backward_data(to_p, p, -1, p.dtype).mul_(context.scaling)
            block.put(to_query, torch.bmm(to_scores, block.of(key)))
            block.put(to_key, torch.bmm(to_scores.transpose(1, 2), block.of(query)))
        return to_query, to_key, to_value, None, None, None, None


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    scaling: float,
    p: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(query · keyᵀ · scaling + mask), elements dropped with probability `p`, · value, of each text, on a CPU.

    query, key, value: (tokens, heads, size), of one dtype, texts behind each other, `lengths` tokens each. mask: (texts, 1 or
    heads, length, length) where all are of one length, True where a token may be seen, or numbers to add. Returns (tokens,
    heads, size).
    """
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    return _Attention.apply(query, key, value, mask, lengths, scaling, kept_levels(p))


def _packed_sdpa(states: Sequence[torch.Tensor], lengths: Sequence[int], scaling: float) -> torch.Tensor:
    """torch's attention text by text; texts of one length that follow each other go together. Where no gradient is needed,
    bf16 goes through products of matrices, which are faster than torch's fused kernel for texts of some hundred tokens."""
    if not torch.is_grad_enabled() and states[0].dtype == torch.bfloat16:
        return _by_products(states, lengths, scaling)
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    parts = zip(*(t.split([length * texts for length, texts in runs]) for t in states), strict=True)
    out = []
    for (length, texts), own in zip(runs, parts, strict=True):
        q, k, v = (t.unflatten(0, (texts, length)).transpose(1, 2) for t in own)
        out.append(scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1))
    return torch.cat(out)


def _by_products(states: Sequence[torch.Tensor], lengths: Sequence[int], scaling: float) -> torch.Tensor:
    query, key, value = states
    out = torch.empty_like(value)
    for block in _blocks(lengths, query.shape[1]):
        scores = query.new_empty(block.texts * query.shape[1], block.length, block.length)
        torch.baddbmm(scores, block.of(query), block.of(key).transpose(1, 2), beta=0, alpha=scaling, out=scores)
        block.put(out, torch.bmm(torch.softmax(scores, -1, out=scores), block.of(value)))
    return out


def fast_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    text_lengths: Sequence[int] | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' `sdpa`, except with dropout on a CPU, or where texts are packed: one row, `text_lengths` tokens each."""
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    if text_lengths is None and not (dropout and _plain(module, query, key, value, attention_mask, more)):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **more)
    texts, _, length, _ = query.shape
    states = [t.transpose(1, 2).flatten(0, 1) for t in (query, key, value)]
    lengths = [length] * texts if text_lengths is None else text_lengths
    with torch.autocast("cpu", enabled=False):
        if not dropout:
            return _packed_sdpa(states, lengths, factor).unflatten(0, (texts, length)), None
        q, k, v = states
        return attention(q, k, v, lengths, factor, dropout, attention_mask).unflatten(0, (texts, length)), None


def _plain(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, more: Any) -> bool:
    causal = getattr(module, "is_causal", True) if more.get("is_causal") is None else more["is_causal"]
    special = causal if mask is None else mask.requires_grad
    special = special or any(more.get(name) is not None for name in ("position_bias", "cache"))
    return not special and query.device.type == "cpu" and query.shape == key.shape and query.dtype == key.dtype == value.dtype


def use_fast_attention(encoder: nn.Module) -> None:
    """Let a transformers model use this attention where it would use `sdpa`: a BERT, or one with dropout."""
    config: Any = getattr(encoder, "config", None)
    drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in encoder.modules())
    if getattr(config, "_attn_implementation", None) == "sdpa" and (drops or config.model_type == "bert"):
        config._attn_implementation = NAME


# when imported, since a process that is sent a model has to know what its config names
AttentionInterface.register(NAME, fast_attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


def hidden_states(
    encoder: nn.Module, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None = None
) -> torch.Tensor:
    """(texts, length, size) last hidden states of `ids` (texts, length), of which `mask` is 1 at the first tokens of a text.
    `types`: (texts, length) the part of a pair that a token belongs to, where the model tells parts apart.

    On a CPU a BERT that uses this attention computes the texts packed, and hidden states of padding are 0.
    """
    config: Any = encoder.config
    packs = config._attn_implementation == NAME and config.model_type == "bert" and not config.is_decoder
    if not packs or ids.device.type != "cpu":
        of_pairs = {} if types is None else {"token_type_ids": types}
        return encoder(input_ids=ids, attention_mask=mask, **of_pairs).last_hidden_state
    real = mask.bool()
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    packed = {"input_ids": ids[real][None], "position_ids": positions[real][None]}
    if types is not None:
        packed["token_type_ids"] = types[real][None]
    states = encoder(**packed, text_lengths=mask.sum(1).tolist()).last_hidden_state[0]
    place = torch.zeros(mask.shape, dtype=torch.long).masked_scatter_(real, torch.arange(1, len(states) + 1))
    return torch.cat([states.new_zeros(1, states.shape[1]), states])[place]
