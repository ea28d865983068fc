"""The store command: lists the annotations of a store, and brings over the runs of an earlier version."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from uar.annotation.adoption import adopt
from uar.annotation.selection import Annotations
from uar.collections import open_corpus
from uar.errors import UserError
from uar.storage.files import matching

log = logging.getLogger(__name__)


def store(cfg: DictConfig, folder: Path) -> int:
    """Print the annotations, those of the corpus of `collection` where it is given, and return their number."""
    annotations = Annotations(Path(cfg.store))
    if cfg.runs:
        _adopt(annotations, cfg)
    corpus = open_corpus(cfg.collection).hash if cfg.collection else None
    found = annotations.listed(corpus)
    table = Table("annotator", "models", "collection", "depth", "questions", "last run", title=str(cfg.store))
    for about in found:
        last = time.strftime("%Y-%m-%d %H:%M", time.localtime(about["run"]["time"]))
        where = f"{last} {about['run'].get('folder') or ''}".strip()
        models, depth = "\n".join(about["models"]), str(about["candidates"].get("depth"))
        table.add_row(about["annotator"]["annotator"], models, about["collection"], depth, str(about["questions"]), where)
    Console().print(table)
    return len(found)


def _adopt(annotations: Annotations, cfg: DictConfig) -> None:
    """Bring over what can be, and say of the other runs why not; UserError where none could be."""
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else list(cfg.runs)
    places = dict.fromkeys(path for pattern in patterns for path in matching(pattern))
    folders = [place for place in places if (place / "candidates").is_dir() and (place / "ledger.json").is_file()]
    good = 0
    for run in folders:
        try:
            adopted = adopt(annotations, run)
        except UserError as error:
            log.warning("Left out: %s", error)
            continue
        good += 1
        log.info(
            "%s: pools of %d questions are in the store now; %d have labels, %d failed, %d lack replies",
            run, adopted.questions, adopted.judged, adopted.failed, adopted.incomplete,
        )  # fmt: skip
    if not good:
        raise UserError(f"runs={cfg.runs}: no annotate run that can be brought over ({len(folders)} were found)")
