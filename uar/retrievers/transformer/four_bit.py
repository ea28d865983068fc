"""Weights of four bits (NF4, arXiv 2305.14314) through bitsandbytes: they do not learn, and adapters beside them do."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from uar.errors import UserError

FOUR_BIT = "4bit"


def quantization() -> Any:
    """What transformers loads such weights by. UserError where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise UserError("retriever.dtype=4bit: bitsandbytes is not installed; run: pip install 'uar[four_bit]'")
    from transformers import BitsAndBytesConfig

    half = torch.bfloat16
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=half, bnb_4bit_use_double_quant=True
    )


def settle(encoder: Any) -> None:
    """With its adapters in: saved, it is a model of whole weights, and its state has what learns and what it is loaded over,
    without the scales of weights."""
    for layer in _layers(encoder):
        layer.support_avx512bf16_for_cpu = False  # else encoding puts weights into an order that training cannot read
    encoder.hf_quantizer = None
    del encoder.config.quantization_config
    encoder.register_state_dict_post_hook(_without_scales)


def whole_weights(encoder: nn.Module) -> dict[str, torch.Tensor]:
    """(out, in) in bf16, by name, of those that have four bits."""
    names = {module: name for name, module in encoder.named_modules()}
    return {f"{names[layer]}.weight": _whole(layer.weight) for layer in _layers(encoder)}


def _whole(weight: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    whole: torch.Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return whole


def _layers(encoder: nn.Module) -> Iterator[Any]:
    return (module for module in encoder.modules() if hasattr(getattr(module, "weight", None), "quant_state"))


def _without_scales(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if ".weight." in name.removeprefix(prefix)]:
        del state[name]
