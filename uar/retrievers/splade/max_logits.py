"""The greatest logit of each token of the vocabulary over a text, which max pooling needs, without holding all logits."""

from typing import Any

import torch
from torch import nn

LOGITS = 1 << 23  # numbers held at a time: 32 MiB of fp32


class _MaxLogits(torch.autograd.Function):
    """The gradient of a maximum goes to one token of a text, and to none where ReLU cuts it off. So it is a sparse matrix,
    (tokens, vocabulary), whose products cost a fraction of the dense ones."""

    @staticmethod
    def forward(
        context: Any, states: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        texts, length, _ = states.shape
        learns = any(context.needs_input_grad)
        values = torch.empty(texts, len(weight), device=states.device)
        places = torch.empty(texts if learns else 0, len(weight), dtype=torch.int32, device=states.device)
        at_once = max(1, LOGITS // (length * len(weight)))
        for start in range(0, texts, at_once):
            some = slice(start, start + at_once)
            logits = nn.functional.linear(states[some], weight).masked_fill_(~mask[some][..., None], -torch.inf)
            if learns:
                values[some], places[some] = logits.max(dim=1)
            else:  # half the time
                values[some] = logits.amax(dim=1)
        if bias is not None:
            values += bias
        context.save_for_backward(states, weight, values.relu_(), places)
        context.has_bias = bias is not None
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, weight, values, places = context.saved_tensors
        texts, length, size = states.shape
        with torch.autocast(states.device.type, enabled=False):
            text, token = (gradient.masked_fill(values <= 0, 0) != 0).nonzero(as_tuple=True)
            given, place = gradient[text, token], text * length + places[text, token]
            shape = (texts * length, len(weight))
            chosen = torch.sparse_coo_tensor(torch.stack([place, token]), given, shape, check_invariants=False)
            to_states = torch.sparse.mm(chosen, weight.float()).view(texts, length, size)
            to_weight = torch.sparse.mm(chosen.t(), states.flatten(0, 1).float())
            to_bias = given.new_zeros(len(weight)).index_add_(0, token, given) if context.has_bias else None
        return to_states.to(states.dtype), None, to_weight.to(weight.dtype), to_bias


def max_logits(states: torch.Tensor, mask: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    """(texts, vocabulary) fp32: max(0, logit) of the token where it is greatest.

    states: (texts, length, hidden) what `layer` makes logits of; mask: (texts, length) true at tokens. Since log(1 + x) rises
    with x, the maximum of logits gives the maximum of SPLADE's weights.
    """
    return _MaxLogits.apply(states, mask, layer.weight, layer.bias)
