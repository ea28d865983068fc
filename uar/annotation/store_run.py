"""The store command: what a store holds, and what keeps it in order."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from uar.annotation.adoption import adopt
from uar.annotation.selection import Annotations
from uar.annotation.why import why
from uar.collections import open_collection, open_corpus
from uar.errors import UserError
from uar.launch.value_kinds import one_or_several
from uar.llm.store import upkeep
from uar.llm.store.journal import journals_of
from uar.llm.store.parts import parts_of
from uar.llm.store.rule import rule
from uar.storage.files import matching

log = logging.getLogger(__name__)


def store(cfg: DictConfig, folder: Path) -> int:
    """Do what `action` says, see conf/store.yaml, and return the number of annotations or records that it was done with."""
    action = ACTIONS.get(cfg.action)
    if action is None:
        raise UserError(f"action={cfg.action}; allowed: {', '.join(ACTIONS)}")
    place = Path(cfg.store)
    imported = action in (_annotations, _why) and (cfg.runs or Annotations(place).placed())  # labels of a file have no records
    if not (imported or parts_of(place) or journals_of(place)):
        raise UserError(f"store={place}: nothing is kept there; name the store of the annotate runs (their store=)")
    for name, needed in NEEDED.items():
        if cfg.action in needed and not cfg[name]:
            raise UserError(f"action={cfg.action} needs {name}=; see python -m uar.store --help")
    return action(cfg, place)


def _records(cfg: DictConfig, place: Path) -> int:
    found = upkeep.counted(place, rule(cfg.where)).to_pylist()
    table = Table("collection, stage, prompt, model", "records", "failures", "tokens", "seconds", "days", title=str(place))
    for row in found:
        about = [row["collection"], row["stage"], f"{row['template']} ({row['template_hash'][:8]})", row["model"]]
        tokens = f"{row['tokens_in']:,} in\n{row['tokens_out']:,} out"
        numbers = f"{row['records']:,}", f"{row['failures']:,}", tokens, f"{row['seconds']:,.0f}"
        table.add_row("\n".join(about), *numbers, f"{_day(row['first'])}\n{_day(row['last'])}")
    Console().print(table)
    return sum(row["records"] for row in found)


def _why(cfg: DictConfig, place: Path) -> int:
    lines = list(why(Annotations(place), open_collection(cfg.collection), str(cfg.question)))
    for line in lines:
        log.info("%s", line)
    return len(lines)


def _export(cfg: DictConfig, place: Path) -> int:
    number = upkeep.export(place, rule(cfg.where), Path(cfg.out))
    log.info("%d records are in %s", number, cfg.out)
    return number


def _verify(cfg: DictConfig, place: Path) -> int:
    number, faults = upkeep.faults(place)
    for fault in faults:
        log.error("%s", fault)
    if faults:
        raise UserError(f"store={place}: {len(faults)} files cannot be read, {number} records can; move those files away")
    log.info("%d records, all of which can be read", number)
    return number


def _compact(cfg: DictConfig, place: Path) -> int:
    parts, dropped = upkeep.compact(place)
    log.info("%d parts became %d; %d failures that a later reply replaces are dropped", parts, len(parts_of(place)), dropped)
    return dropped


def _delete(cfg: DictConfig, place: Path) -> int:
    if all(value is None for value in cfg.where.values()):
        raise UserError("action=delete needs a rule, such as where.outcome=error or where.model=NAME; it says what goes")
    number = upkeep.delete(place, rule(cfg.where), dry_run=cfg.dry_run)
    if number and not cfg.dry_run:
        Annotations(place).forget()
    log.info("%d records %s", number, "would be deleted; dry_run=false deletes them" if cfg.dry_run else "are deleted")
    return number


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _annotations(cfg: DictConfig, place: Path) -> int:
    """Print the annotations, those of the corpus of `collection` where it is given, and return their number."""
    annotations = Annotations(place)
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
    patterns = one_or_several("runs", cfg.runs)
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


ACTIONS: dict[str, Callable[[DictConfig, Path], int]] = {
    "annotations": _annotations,
    "records": _records,
    "why": _why,
    "export": _export,
    "verify": _verify,
    "compact": _compact,
    "delete": _delete,
}
NEEDED = {"collection": ("why",), "question": ("why",), "out": ("export",)}
