"""What an annotate config names besides questions and passages: who judges, at what price, and what decides on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.annotation.annotators import Annotator
from uar.annotation.gate import Gate
from uar.errors import UserError
from uar.llm.costs.discount import discounted
from uar.llm.costs.gpus import with_gpus
from uar.llm.costs.ledger import Prices
from uar.llm.engines.work import outcomes_to_retry
from uar.llm.models import identity_of
from uar.storage.labelled_pairs import LabelledPairs, read_pairs


@dataclass(frozen=True)
class Means:
    """`llms`: configs of all models; `asked`: of those that are asked. `retry`: outcomes of calls that are asked again.
    `against`: labels of a file to compare with. `tries`: whether one process asks one model, which a dry run may try."""

    annotator: Annotator
    llms: list[Mapping[str, Any]]
    asked: list[Mapping[str, Any]]
    prices: Prices
    gate: Gate
    retry: tuple[str, ...]
    against: LabelledPairs | None
    tries: bool


def means_of(cfg: DictConfig) -> Means:
    """Of a composed annotate config. UserError for options that do not fit each other."""
    annotator: Annotator = hydra.utils.instantiate(cfg.annotator, _convert_="all")
    llms = llm_configs(cfg)
    asked = llms if annotator.needs_llm else []
    prices = discounted(hydra.utils.instantiate(cfg.price, _convert_="all").for_models(list(cfg.llms)), asked)
    prices = with_gpus(prices, asked, OmegaConf.to_container(cfg.engine, resolve=True))  # type: ignore[arg-type]
    _fitting_models(annotator, llms)
    if cfg.doubtful is not None and not 0 < cfg.doubtful <= 1:
        raise UserError(
            f"doubtful={cfg.doubtful}: a share of the questions above 0 and up to 1 is needed, or null for no list"
        )
    return Means(
        annotator,
        llms,
        asked,
        prices,
        gate=hydra.utils.instantiate(cfg.gate),
        retry=outcomes_to_retry(cfg.retry_failures),
        against=against_of(cfg),
        tries=len(llms) == 1 and "actors" not in cfg.engine,
    )


def against_of(cfg: DictConfig) -> LabelledPairs | None:
    """The labels of the file that `against` names."""
    return read_pairs(Path(cfg.against)) if cfg.against else None


def llm_configs(cfg: DictConfig) -> list[Mapping[str, Any]]:
    """Plain configs of the run's model and of the further ones of an ensemble."""
    return [OmegaConf.to_container(llm, resolve=True) for llm in (cfg.llm, *cfg.llms.values())]  # type: ignore[misc]


def _fitting_models(annotator: Annotator, llms: Sequence[Any]) -> None:
    wanted = annotator.models
    if len(llms) != wanted:
        raise UserError(f"{len(llms)} models are given and {type(annotator).__name__} asks {wanted}; +llm@llms.NAME adds one")
    names = [identity_of(llm) for llm in llms] if wanted > 1 else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"llm and llms name {twice} more than once, which would say the same; raise annotator.samples instead")
