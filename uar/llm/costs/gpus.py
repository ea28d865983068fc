"""How many GPUs a run holds, for what it costs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import hydra

from uar.llm.costs.ledger import Prices
from uar.llm.models import model_class

log = logging.getLogger(__name__)


def with_gpus(prices: Prices, llms: Sequence[Mapping[str, Any]], engine: Mapping[str, Any]) -> Prices:
    """The prices with the GPUs that plain configs of models and engine take, where `price.gpus` does not say them."""
    if prices.gpus is None:
        prices = replace(prices, gpus=_held(llms, engine))
    if prices.gpu_hour is not None and not prices.gpus:
        log.warning(
            "price.gpu_hour=%s counts nothing: %s; give price.gpus", prices.gpu_hour,
            "no GPU is seen here" if prices.gpus == 0 else "how many GPUs the servers hold is not known here",
        )  # fmt: skip
    return prices


def _held(llms: Sequence[Mapping[str, Any]], engine: Mapping[str, Any]) -> float | None:
    """None where a server has them."""
    held = [model_class(llm).gpus(llm) for llm in llms]
    if None in held:
        return None
    run_engine: Any = hydra.utils.get_class(engine["_target_"])
    return float(run_engine.gpus(engine, held if _seen() else []))


def _seen() -> bool:
    import torch

    return bool(torch.cuda.is_available())
