"""Who labels the questions of a round: people whose judgements the qrels hold, or an LLM."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, open_dict

from uar.annotation.annotate_run import annotate
from uar.collections import Collection
from uar.errors import UserError
from uar.labels import HumanLabels, LLMLabels, MixedLabels
from uar.launch.round_config import round_config
from uar.storage.files import read_json

AskPeople = Callable[[DictConfig, Path, Sequence[str], Path], int]
WHO = ("simulated", "llm", "human")


def check_who(cfg: DictConfig) -> None:
    """UserError where `who` cannot be asked, or its labels are not those that are trained on."""
    if cfg.who not in WHO:
        raise UserError(f"who={cfg.who!r}; allowed: {', '.join(WHO)}")
    if cfg.who == "human" and cfg.dataset.judgements is not None:
        raise UserError("who=human: dataset.judgements= is what people say in the rounds; leave it null")
    source = hydra.utils.get_class(cfg.label_source._target_)
    wanted = (LLMLabels,) if cfg.who == "llm" else (HumanLabels, MixedLabels)
    if not issubclass(source, wanted):
        names = " or ".join(one.__name__.removesuffix("Labels").lower() for one in wanted)
        raise UserError(f"who={cfg.who}: its labels are not what label_source trains on; give label_source={names}")


def judged_pairs(collection: Collection, query_ids: Sequence[str]) -> int:
    """How many pairs people judged of these questions."""
    return sum(len(collection.qrels.get(q, ())) for q in query_ids)


def ask_llm(cfg: DictConfig, folder: Path, chosen: Path, number: int, left: float | None) -> tuple[int, float | None]:
    """Annotate the first `number` questions of a file; what the store holds is not asked again. Returns the pairs that have
    labels and what they cost, also what an earlier try that was stopped spent. `left`: what they may cost; None: anything."""
    before = sum(_cost(path) or 0.0 for path in folder.glob("ledger*.json"))
    if (folder / "ledger.json").is_file():  # of a try that was stopped
        os.replace(folder / "ledger.json", folder / f"ledger-{len(list(folder.glob('ledger-*.json'))) + 1}.json")
    asked = round_config(cfg, "ask", "annotate.py", "annotate", ["logger=none", "acquire=listed"])
    with open_dict(asked):
        asked.acquire.path, asked.limit = str(chosen), number
        if left is not None:
            asked.price.limit = left - before
    spent = annotate(asked, folder)
    cost: Any = spent["cost"]
    return spent["pairs"], None if cost is None else cost + before


def _cost(path: Path) -> float | None:
    found: float | None = read_json(path)["cost"]
    return found
