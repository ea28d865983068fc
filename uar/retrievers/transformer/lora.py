"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: put into an encoder, and merged into its weights for export."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from uar.errors import UserError
from uar.retrievers.transformer.four_bit import whole_weights

ADAPTER = "default"
UNUSED = "pooler"  # its output is not used, so adapters of it would have no gradient


def add_lora(encoder: nn.Module, rank: int, alpha: float | None, dropout: float, targets: str | Iterable[str]) -> None:
    """Adapters in place: weight + alpha / rank · B A, with A (rank, in) random and B (out, rank) zero. They alone learn then.

    `alpha`: None is 2 · rank. `targets`: names of layers, or all-linear.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    if rank < 1 or not 0 <= dropout < 1:
        raise UserError(f"retriever.lora_rank={rank}, lora_dropout={dropout}: at least 1, and 0 to below 1, are needed")
    kinds = {type(module).__name__ for module in encoder.modules()}
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        fan_in_fan_out="Conv1D" in kinds,  # GPT-2's layers, whose weights are (in, out)
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=rf"{UNUSED}\..*" if getattr(encoder, UNUSED, None) is not None else None,
    )
    try:
        inject_adapter_in_model(config, encoder, ADAPTER)
        cast_adapter_dtype(encoder, ADAPTER)  # fp32, whatever the weights beside them are in
    except ValueError as error:
        linear = {n.rpartition(".")[2] for n, m in encoder.named_modules() if isinstance(m, nn.Linear)}
        raise UserError(
            f"retriever.lora_targets={targets}: no such layers; allowed: all-linear, or a list of {', '.join(sorted(linear))}"
        ) from error


def merged_state(encoder: nn.Module) -> dict[str, torch.Tensor] | None:
    """State of the encoder with its adapters merged into the weights, in the weights' dtype, under the names it has without
    adapters; the encoder stays as it is. None where it has no adapters."""
    if not any(".lora_" in name for name, _ in encoder.named_modules()):
        return None
    from peft.tuners.tuners_utils import BaseTunerLayer

    own = encoder.state_dict() | whole_weights(encoder)
    state = {n.replace(".base_layer.", "."): value for n, value in own.items() if ".lora_" not in n}
    with torch.no_grad():
        for name, module in encoder.named_modules():
            if isinstance(module, BaseTunerLayer):
                layer: Any = module
                weight = state[f"{name}.weight"]
                state[f"{name}.weight"] = (weight.float() + layer.get_delta_weight(ADAPTER).float()).to(weight.dtype)
    return state
