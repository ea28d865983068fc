"""Attention of a packed row group by group, so that its work grows with the groups' lengths, not with the row's; and of rows
that begin with the same tokens, whose keys and values are there once."""

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
Prefix = Sequence[tuple[torch.Tensor, torch.Tensor]]  # by layer: keys and values, (heads, tokens, size) each
_prefix: ContextVar[Prefix] = ContextVar("shared prefix", default=())
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


@contextmanager
def shared_prefix(states: Prefix) -> Iterator[None]:
    """Every row of a forward pass goes on from these tokens meanwhile; masks and caches are those of what follows them."""
    token = _prefix.set(states)
    try:
        yield
    finally:
        _prefix.reset(token)


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
    buckets, prefix = _row.get(), _prefix.get()
    if prefix:
        return _after(prefix[int(module.layer_idx)], query, key, value, attention_mask, module, options), None  # type: ignore[arg-type]
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


def _after(
    prefix: tuple[torch.Tensor, torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Any,
    module: torch.nn.Module,
    options: dict[str, Any],
) -> torch.Tensor:
    """Attention of rows to the prefix and to their own tokens together; a step of one token does not copy the prefix."""
    (before, values), (rows, heads, new, size) = prefix, query.shape
    tokens = before.shape[1]
    if new > 1:
        key, value = (
            torch.cat([shared.expand(rows, -1, -1, -1), own], dim=2) for shared, own in ((before, key), (values, value))
        )
        mask = torch.cat([mask.new_zeros(*mask.shape[:3], tokens), mask], dim=-1)
        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **options)
        return whole[0]
    groups = key.shape[1]
    scale = options.get("scaling") or size**-0.5
    own_query = query.reshape(rows, groups, heads // groups, size) * scale
    together = own_query.transpose(0, 1).reshape(groups, -1, size)  # all rows at once
    of_prefix = (together @ before.transpose(1, 2)).view(groups, rows, -1, tokens).transpose(0, 1)
    scores = torch.cat([of_prefix, own_query @ key.transpose(2, 3) + mask], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    to_prefix = weights[..., :tokens].transpose(0, 1).reshape(groups, -1, tokens)
    mixed = (to_prefix @ values).view(groups, rows, -1, values.shape[-1]).transpose(0, 1) + weights[..., tokens:] @ value
    return mixed.reshape(rows, 1, heads, -1)
