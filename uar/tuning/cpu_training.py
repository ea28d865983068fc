"""What makes tuning faster on a CPU: attention whose backward pass is fast there; and what the rows of a batch begin with
alike is computed once for all of them, with its gradient."""

from typing import Any

import torch

from uar.machine.unrounded import unrounded_results

LEAST = 64  # tokens; a second forward pass costs more than fewer would save
MOST = 4 << 30  # bytes of attention weights that are kept for the backward pass
BYTES = 8  # of one: before and after the softmax, and in 32 bits


def shared_tokens(input_ids: torch.Tensor, most: int) -> int:
    """How many of the first `most` tokens are the same in all rows of (rows, tokens); 0 where it is not worth it."""
    differ = (input_ids[:, :most] != input_ids[:1, :most]).any(0).nonzero()
    same = int(differ[0]) if len(differ) else most
    return same if len(input_ids) > 1 and same >= LEAST else 0


def attend_fast(model: Any, pairs: int) -> None:
    """Let attention be plain products where its weights, of `pairs` of tokens a head and layer, fit into memory. torch's own
    one keeps none, and its backward pass takes two to three times as long."""
    config = model.config.get_text_config()
    if pairs * config.num_attention_heads * config.num_hidden_layers * BYTES <= MOST:
        model.set_attn_implementation("eager")


def logits_at(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, places: torch.Tensor, shared: int) -> Any:
    """(rows, places, words) logits of a causal LM, `unrounded`. `input_ids`, `attention_mask`: (rows, tokens), padded on the
    right. `shared`: so many first tokens are the same in all rows, and all `places` come after them."""
    with unrounded_results(model.get_output_embeddings()):
        if not shared:
            return model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=places).logits
        cache = model(input_ids=input_ids[:1, :shared], use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(input_ids))
        rest = {"input_ids": input_ids[:, shared:], "attention_mask": attention_mask, "logits_to_keep": places - shared}
        return model(**rest, past_key_values=cache, use_cache=True).logits
