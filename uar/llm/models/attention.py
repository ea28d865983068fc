"""Attention of a packed row group by group, so that its work grows with the groups' lengths, not with the row's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from uar.llm.models.packing import Bucket

NAME = "packed_sdpa"
_row: ContextVar[Sequence[tuple[Bucket, torch.Tensor | None]]] = ContextVar("packed row", default=())


def use_packed_attention(model: Any) -> bool:
    """Whether the model's attention could be replaced by this one, which is torch's own for rows that are not packed."""
    if model.config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)


@contextmanager
def packed_row(buckets: Sequence[Bucket], like: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a forward pass needs meanwhile: an attention mask in name, of the device and number format of `like`."""
    here = [bucket.on(like.device) for bucket in buckets]
    token = _row.set([(bucket, _additive(bucket.mask, like)) for bucket in here])
    try:
        yield like.new_zeros(1, 1, 1, 1)
    finally:
        _row.reset(token)


def _additive(mask: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """What is added to the scores of attention."""
    return None if mask is None else like.new_zeros(mask.shape).masked_fill_(~mask, torch.finfo(like.dtype).min)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """query, key, value: (1, heads, length, size) -> (1, length, heads, size)."""
    buckets = _row.get()
    if not buckets:
        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return whole
    heads, length = query.shape[1:3]
    shared = heads // key.shape[1]
    output = query.new_empty(length, heads, value.shape[-1])
    for bucket, mask in buckets:
        q, k, v = (states[0][:, bucket.index].transpose(0, 1) for states in (query, key, value))
        if shared > 1:
            k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=options.get("scaling")
        )
        output[bucket.tokens] = mixed.transpose(1, 2).flatten(0, 1)[bucket.kept]
    return output[None], None
