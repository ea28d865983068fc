"""Attention with dropout on a CPU, for the attention interface of transformers."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from uar.retrievers.dropout import keep_mask, kept_levels, random_bits, scale

NAME = "sdpa_fast_dropout"
BLOCK = 1 << 18  # probabilities that are worked on at a time: 1 MiB of fp32, so that they stay in the cache


class _Attention(torch.autograd.Function):
    """query, key, value: (texts, heads, length, size of a head); bias: (texts, 1 or heads, length, length), added."""

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        scaling: float,
        levels: int,
    ) -> torch.Tensor:
        texts, heads, length, _ = query.shape
        shape = (texts, heads, length, key.shape[2])
        probabilities, bits = query.new_empty(shape), random_bits(shape)
        out = query.new_empty(texts, length, heads, value.shape[3])
        for block in _blocks(shape):
            scores = probabilities[block].flatten(0, 1)
            q, k = query[block].flatten(0, 1), key[block].flatten(0, 1)
            torch.baddbmm(scores, q, k.transpose(1, 2), beta=0, alpha=scaling, out=scores)
            if bias is not None:
                probabilities[block] += bias[block]
            torch.softmax(scores, -1, out=scores)
            kept = keep_mask(bits[block], levels, scores.dtype).mul_(probabilities[block])
            mixed = torch.bmm(kept.flatten(0, 1), value[block].flatten(0, 1))
            out[block] = mixed.view(-1, heads, length, mixed.shape[2]).transpose(1, 2)
        context.save_for_backward(query, key, value, probabilities, bits)
        context.scaling, context.levels = scaling, levels
        return out.mul_(scale(levels))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, probabilities, bits = context.saved_tensors
        to_query, to_key, to_value = (torch.empty_like(t) for t in (query, key, value))
        for block in _blocks(bits.shape):
            q, k, v = (t[block].flatten(0, 1) for t in (query, key, value))
            p = probabilities[block].flatten(0, 1)
            to_out = (gradient[block].transpose(1, 2) * scale(context.levels)).flatten(0, 1)
            kept = keep_mask(bits[block], context.levels, p.dtype).flatten(0, 1)
            to_p = torch.bmm(to_out, v.transpose(1, 2)).mul_(kept)
            to_value[block] = torch.bmm(kept.mul_(p).transpose(1, 2), to_out).view_as(value[block])
            to_scores = torch._softmax_backward_data(to_p, p, -1, p.dtype)
            to_query[block] = torch.bmm(to_scores, k).mul_(context.scaling).view_as(query[block])
            to_key[block] = torch.bmm(to_scores.transpose(1, 2), q).mul_(context.scaling).view_as(key[block])
        return to_query, to_key, to_value, None, None, None


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float, p: float
) -> torch.Tensor:
    """softmax(query · keyᵀ · scaling + mask), elements dropped with probability `p`, · value, on a CPU.

    query, key, value: (texts, heads, length, size of a head), all of one dtype. mask: (texts, 1 or heads, length, length),
    True where attention may look, or numbers to add. Returns (texts, length, heads, size of a head).
    """
    levels = kept_levels(p)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    return _Attention.apply(query, key, value, mask, scaling, levels)


def fast_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' `sdpa`, except where there is dropout on a CPU."""
    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    special = causal if attention_mask is None else attention_mask.requires_grad
    special = special or any(more.get(name) is not None for name in ("position_bias", "cache"))
    alike = query.shape[1] == key.shape[1] and query.dtype == key.dtype == value.dtype
    if not dropout or query.device.type != "cpu" or special or not alike:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **more)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        return attention(query, key, value, attention_mask, scaling, dropout), None


def use_fast_attention(encoder: nn.Module) -> None:
    """Let a transformers model that has dropout in its `sdpa` attention use this one."""
    config: Any = getattr(encoder, "config", None)
    if getattr(config, "_attn_implementation", None) != "sdpa" or not any(
        isinstance(m, nn.Dropout) and m.p > 0 for m in encoder.modules()
    ):
        return
    AttentionInterface.register(NAME, fast_attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config._attn_implementation = NAME


def _blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Slices of texts whose probabilities fit in the cache together."""
    texts, *rest = shape
    size = max(1, BLOCK // torch.Size(rest).numel())
    return (slice(start, start + size) for start in range(0, texts, size))
