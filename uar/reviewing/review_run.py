"""The review command: a page on which people judge passages, until Ctrl-C; then what they said as files."""

import json
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.acquisition import Acquisition
from uar.annotation.scale import load_scale
from uar.collections import Collection
from uar.errors import DataError, UserError
from uar.launch.owner import owned
from uar.launch.value_kinds import one_or_several
from uar.reviewing.access import token_for
from uar.reviewing.exchange.kept_facts import Names
from uar.reviewing.exchange.taking_back import take_back, write_for
from uar.reviewing.label_database import CURRENT, Item, LabelDatabase
from uar.reviewing.labelling import Labelling
from uar.reviewing.manner import Manner
from uar.reviewing.queue_options import differing, kept_options
from uar.reviewing.review_app import review_app
from uar.reviewing.review_files import write_files
from uar.reviewing.review_report import review_report
from uar.reviewing.review_source import review_source
from uar.reviewing.serving import address, listening, serve
from uar.storage.files import digest
from uar.storage.judgement_files import DATABASE, NAME
from uar.storage.manifest import mask

log = logging.getLogger(__name__)
NEXT = "dataset.judgements={folder} takes them as people's labels, report={folder} says how they agree"
QUEUE = ("dataset", "run", "collection", "annotation", "candidates", "annotator", "acquire", "seed", "shared")


def review(cfg: DictConfig, folder: Path) -> int:
    """Serve the page, report, or exchange files with another tool; return how many judgements there are."""
    if cfg.report is not None:
        files = [Path(file) for file in one_or_several("report", cfg.report)]
        gold = None if cfg.gold is None else Path(cfg.gold)
        return int(review_report(files, folder, gold, cfg.gold_grade, cfg.seed)["judgements"])
    with owned(folder):
        labelling = open_review(cfg, folder)
        try:
            if cfg["import"] is not None:
                take_back(labelling, Path(cfg["import"]), Names({str(i): str(name) for i, name in (cfg.names or {}).items()}))
            if cfg.export is not None:
                write_for(cfg.export, labelling, folder)
            if cfg.export is None and cfg["import"] is None:
                serve_page(cfg, labelling, folder)
        except KeyboardInterrupt:
            log.info("The page is closed; the same command opens it again where it was")
        finally:
            number = write_files(labelling, folder)
            labelling.database.close()
    if number:
        log.info("%d judgements: %s; %s", number, folder / NAME, NEXT.format(folder=folder))
    return number


def open_review(cfg: DictConfig, folder: Path, chosen: Sequence[str] | None = None) -> Labelling:
    """The review that is kept in the folder, or a new one. `chosen`: the questions, in the place of those of `acquire`."""
    manner = manner_of(cfg)
    source = review_source(cfg, folder, manner.scale)
    database = LabelDatabase(folder / DATABASE)
    facts = _same_review(cfg, folder, database, source.collection, manner)
    if manner.suggestion != "hidden" and not source.suggests:
        raise UserError(f"suggestion={manner.suggestion}: there is no LLM's judgement to show; give run= or annotation=")
    known = {row["query_id"] for row in database.rows("select query_id from items")}
    wanted = len(source.query_ids) if cfg.limit is None else min(cfg.limit, len(source.query_ids))
    items: Sequence[Item] = []
    if chosen is not None:
        items = source.of([q for q in chosen if q not in known], cfg.seed, cfg.shared)
    elif len(known) < wanted:
        acquire: Acquisition = hydra.utils.instantiate(cfg.acquire, _convert_="all")
        items = source.items(acquire, cfg.seed, wanted, cfg.shared, known)
    if not items and not known:
        raise UserError(f"{source.collection.reference}: no question with passages to judge; widen candidates")
    database.add(items, facts)  # a command that fails before leaves the folder to another one
    _tell(database)
    title = cfg.title or f"{source.collection.slug}: which passages help to answer?"
    return Labelling(database, source.collection, manner, title)


def manner_of(cfg: DictConfig) -> Manner:
    scale = load_scale(cfg.grades)
    guideline = ""
    if cfg.guideline is not None:
        try:
            guideline = Path(cfg.guideline).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(cfg.guideline, f"cannot be read ({error}); give a text file in UTF-8") from error
    positive = (len(scale) + 1) // 2 if cfg.positive_grade is None else cfg.positive_grade
    return Manner(
        scale, positive, cfg.mode, cfg.suggestion, cfg.people, cfg.seed, guideline, digest(guideline)[:16], cfg.answers
    )


def serve_page(cfg: DictConfig, labelling: Labelling, folder: Path, until_settled: bool = False) -> None:
    """Until Ctrl-C, or until nothing is left to judge."""
    token = token_for(cfg.host)
    with listening(cfg.host, cfg.port) as sock:
        servers: list[Any] = []

        def finished() -> None:
            servers[0].should_exit = True

        app = review_app(labelling, token, lambda: write_files(labelling, folder), finished if until_settled else None)
        log.info("The page: %s (Ctrl-C ends it; nothing is lost)", address(sock, cfg.host, token))
        if token:
            log.warning("host=%s: other machines can reach the page, over plain HTTP; the address is the password", cfg.host)
        serve(app, sock, servers.append)


def _same_review(
    cfg: DictConfig, folder: Path, database: LabelDatabase, collection: Collection, manner: Manner
) -> dict[str, str]:
    """What tells this review from others, to be kept with it. UserError where the folder holds a review of something else, or
    was made by another guideline."""
    options = {n: OmegaConf.to_container(cfg[n], resolve=True) if OmegaConf.is_config(cfg[n]) else cfg[n] for n in QUEUE}
    kept = json.loads(database.fact("options") or "{}")
    now = {
        "collection": collection.wording,
        "scale": digest([list(grade) for grade in manner.scale], manner.positive_grade),
    }
    advice = "give another out=, or the command of then"
    for name, what in (("collection", "another collection"), ("scale", "other grades (grades=, positive_grade=)")):
        if database.fact(name) not in (None, now[name]):
            raise UserError(f"{folder} holds a review of {what}; {advice}")
    if differ := differing(kept, mask(options), folder):
        raise UserError(f"{folder} holds a review of another queue: {', '.join(differ)}; {advice}")
    guideline = database.fact("guideline")
    labels = database.count(f"with current as ({CURRENT}) select count(*) from current where guideline != ?",
                            manner.guideline_hash)  # fmt: skip
    if guideline not in (None, manner.guideline_hash) and labels and not cfg.new_guideline:
        raise UserError(
            f"guideline={cfg.guideline}: it differs from the one that {labels} labels were made by; new_guideline=true goes "
            "on, and each label says which one it was made by; another out= begins anew"
        )
    now |= {"guideline": manner.guideline_hash, "review": database.fact("review") or secrets.token_hex(8)}
    return {**now, "options": json.dumps(kept_options(mask(options), folder))}


def _tell(database: LabelDatabase) -> None:
    items, labels = (database.count(f"select count(*) from {table}") for table in ("items", "labels"))
    passages = database.count("select count(*) from passages")
    log.info("%d questions with %d passages; %d labels are kept already", items, passages, labels)
