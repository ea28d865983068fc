"""The annotate command: collection -> pools -> records in the store -> labels in the run folder."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from uar.annotation.agreement import agreement
from uar.annotation.chains import Chains, Progress
from uar.annotation.engines import Engine, identity_of
from uar.annotation.judgements import question_of
from uar.annotation.outputs import ledger, write_failures, write_labels
from uar.annotation.stages import Annotator, Judgement
from uar.annotation.store import Store
from uar.candidates import write_pools
from uar.collections import open_training_split
from uar.errors import UserError
from uar.files import write_json
from uar.manifest import save_config, save_manifest

log = logging.getLogger(__name__)
LOG_EVERY = 30.0  # seconds


def annotate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Annotate `dataset.train` (its first `limit` queries) and return the ledger."""
    collection = open_training_split(cfg.dataset.train, cfg.dataset.path)
    save_config(folder, cfg)
    query_ids = collection.head(cfg.limit)
    pools = hydra.utils.instantiate(cfg.candidates).pools(collection, query_ids)
    write_pools(folder / "candidates" / f"{collection.slug}.jsonl", pools)
    annotator: Annotator = hydra.utils.instantiate(cfg.annotator, _convert_="all")
    questions = [q for q in query_ids if pools[q] and (collection.queries[q].answers or not annotator.needs_gold_answers)]
    if len(questions) < len(query_ids):
        log.info(
            "%d of %d queries have no candidates or no target text and are left out",
            len(query_ids) - len(questions),
            len(query_ids),
        )
    if not questions:
        raise UserError(
            f"{collection.reference}: no query with candidates to annotate; widen candidates or choose another split"
        )
    model = identity_of(cfg.llm)
    store = Store(Path(cfg.store))
    engine: Engine = hydra.utils.instantiate(cfg.llm, _convert_="all")
    start = time.perf_counter()
    judged: dict[str, list[Judgement]] = {}
    stopped: UserError | None = None
    try:
        with Bar(TextColumn("annotate"), BarColumn(), MofNCompleteColumn(), TextColumn("calls"), TimeRemainingColumn()) as bar:
            task = bar.add_task("", total=None)
            total = sum(len(pools[q]) for q in questions) if len(annotator.stages) == 1 else None
            on_call = _bar_updater(bar, task, total)
            chains = Chains(annotator, store, collection.slug, model, engine, cfg.max_failure_rate, on_call)
            judged.update(chains.run(question_of(collection, q, pools[q]) for q in questions))
    except UserError as error:  # what was judged so far is written before the error is told
        stopped = error
    finally:
        store.close()
        engine.close()
    spent = ledger(chains.progress, len(judged), time.perf_counter() - start, model)
    judged = {q: judged[q] for q in questions if q in judged}
    write_labels(folder, judged)
    write_failures(folder, chains.progress.failures)
    write_json(folder / "ledger.json", spent)
    agreed = agreement(collection, judged)
    if agreed:
        write_json(folder / "agreement.json", agreed)
    save_manifest(folder, collection=collection.hash, model=model, store=str(cfg.store))
    if stopped:
        raise stopped
    if not judged:
        raise UserError(f"no query got a label: {len(chains.progress.failures)} calls failed, see {folder / 'failures.jsonl'}")
    log.info(
        "%d queries annotated: %d calls made, %d answered by the store, %.0f s; labels in %s",
        len(judged), spent["calls"], spent["calls_answered_by_store"], spent["seconds"], folder,
    )  # fmt: skip
    if agreed:
        log.info("Against people: %s", ", ".join(f"{k} {v:.3f}" for k, v in agreed.items() if k != "queries"))
    return spent


def _bar_updater(bar: Bar, task: Any, total: int | None) -> Callable[[Progress], None]:
    """Moves the bar; where there is no terminal a line is logged every half minute instead."""
    told = time.monotonic()

    def update(progress: Progress) -> None:
        nonlocal told
        done = progress.asked + progress.kept
        bar.update(task, completed=done, total=total)
        if not bar.console.is_terminal and time.monotonic() - told > LOG_EVERY:
            told = time.monotonic()
            log.info("%d%s calls done", done, f" of {total}" if total else "")

    return update
