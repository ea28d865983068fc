"""Annotate runs of earlier versions, which wrote their pools to the run folder alone, as annotations of the store."""

from dataclasses import dataclass
from pathlib import Path

from uar.annotation.annotation import Asked
from uar.annotation.run_settings import annotator_of, run_config
from uar.annotation.selection import Annotations
from uar.collections import Collection, open_collection, open_training_split
from uar.errors import DataError, UserError
from uar.pools.stored_pools import ShownIds
from uar.storage.files import read_json


@dataclass(frozen=True)
class Adopted:
    """What a run brought: pools of `questions`, and what the store says of these."""

    questions: int
    judged: int
    failed: int
    incomplete: int


def adopt(annotations: Annotations, folder: Path) -> Adopted:
    """Add the pools of a run folder to the store; nothing is asked. UserError where the folder does not say what is needed."""
    config = run_config(folder)
    annotator, models = annotator_of(config)
    if not annotator.needs_llm:
        raise UserError(f"{folder}: its annotator asks no model, so that there is nothing to bring over")
    asked = Asked(annotator, models, _collection(folder, config["dataset"]))
    adopted = annotations.of_run(asked, folder)
    pools = adopted.pools
    run = {"time": (folder / "ledger.json").stat().st_mtime, "folder": str(folder), "seed": config.get("seed", 0)}
    shown = ShownIds(asked.collection, pools)
    concluded = annotations.begin(asked, config["candidates"], shown, run, adopted.besides).concluded()
    return Adopted(len(pools), len(concluded.judgements), len(concluded.failed), len(concluded.incomplete))


def _collection(folder: Path, dataset: dict) -> Collection:
    """That of the run: its split, or the questions that it had written."""
    ledger = folder / "ledger.json"
    if not ledger.is_file():
        raise DataError(ledger, "no such file; the run did not end: run its command again, which asks nothing that is kept")
    written = read_json(ledger).get("questions")
    if written:
        return open_collection(f"local:{written['folder']}:train")
    return open_training_split(dataset["train"], dataset["path"], dataset["positive_grade"], dataset.get("answers"))
