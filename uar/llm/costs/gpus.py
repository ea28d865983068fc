"""How many GPUs a run holds, for what it costs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from uar.llm.costs.ledger import Prices

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
    """None where a server has them. Models of one process share its GPUs."""
    if any(llm["_target_"].endswith("OpenAIEngine") for llm in llms):
        return None
    if engine["_target_"].endswith("RayEngine"):
        return float(engine["actors"] * engine["num_gpus"])
    return max((llm.get("tensor_parallel_size") or 1 for llm in llms), default=0) if llms and _seen() else 0


def _seen() -> bool:
    import torch

    return bool(torch.cuda.is_available())
