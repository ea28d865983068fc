"""The part of the annotate command that has questions written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.annotation.outputs import write_failures
from uar.collections import resolve
from uar.errors import UserError
from uar.llm.costs.ledger import Prices
from uar.llm.engines.work import Here
from uar.llm.progress_bar import shown
from uar.questions.generated import Generate, Given, Setting, Writing


def open_writing(cfg: DictConfig, llm: Mapping[str, Any]) -> Writing | None:
    """The questions that are to be written with the model of the config `llm`; None where the collection's own are taken."""
    source: Given | Generate = hydra.utils.instantiate(cfg.questions, _convert_="all")
    if isinstance(source, Given):
        return None
    reference = str(resolve(cfg.dataset.train or "train", cfg.dataset.path))
    options: Any = OmegaConf.to_container(cfg.questions, resolve=True)
    return source.writing(Setting(reference, llm, Path(cfg.store), cfg.seed, options))


def write_questions(writing: Writing, shard: str | None, prices: Prices, folder: Path) -> None:
    """Ask for what the store does not hold, in this process whatever the engine of the annotation is; replies without a
    question go to `failures.jsonl` in the run folder, also where there were too many of them to go on."""
    if not writing.missing:
        return
    if shard:
        raise UserError(
            f"shard={shard}: the questions are not written yet, and every shard would ask for all of them; run the same "
            "command without shard and with limit=1 first"
        )
    try:
        with shown(writing.work, prices, "questions") as bar:
            Here().run(writing.work, bar)
    finally:
        write_failures(folder, writing.work.progress.failures)
