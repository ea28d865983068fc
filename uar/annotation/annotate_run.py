"""The annotate command: collection, or questions written for its corpus -> pools -> records in the store -> labels, costs and
quality in the run folder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.annotation.annotation import Annotation
from uar.annotation.asked_besides import write_besides
from uar.annotation.assignment import Assignment, assign
from uar.annotation.dry_run import dry_run
from uar.annotation.guidelines import compare_guidelines, keep_guidelines
from uar.annotation.judged_blocks import JudgedColumns
from uar.annotation.means import Means, means_of
from uar.annotation.question_source import QuestionSource, Setting, Writing
from uar.annotation.results import Works, write_results
from uar.annotation.selection import Annotations
from uar.collections import Collection, open_training_split
from uar.errors import UserError
from uar.launch.command_line import command_line
from uar.launch.small_table import log_table
from uar.launch.with_workers import with_workers
from uar.llm.costs.spending import Spending
from uar.llm.engines.work import Work
from uar.llm.pooled import PooledQuestions
from uar.llm.progress_bar import progress_bar
from uar.storage.manifest import save_config
from uar.tracking.job import tracked

log = logging.getLogger(__name__)
WRITE = "annotate without a gate (limit=1), have some of the questions judged, then annotate that folder with the gate"


@with_workers
def annotate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Annotate `dataset.train` (its first `limit` queries, of them `shard`) and return the ledger; with `dry_run` ask nothing
    and return the estimate."""
    means = means_of(cfg)
    writing = open_writing(cfg, means.llms[0])
    if writing and writing.missing and cfg.dry_run:
        log.info("The questions are not written yet: this is what writing them takes; ask again once they are")
        return dry_run(writing.work, len(writing.work.questions), means.prices, folder, means.tries)
    _check(cfg, means, writing)
    spending = None if means.prices.limit is None else Spending(means.prices)
    if writing:
        writing.work.spending = spending
        writing.write(cfg.shard, means.prices, folder)
        collection, counts = writing.collection()
    else:
        collection = _collection(cfg)
    task = assign(cfg, means, collection, None if cfg.dry_run else folder)
    questions = PooledQuestions(collection, task.pools)
    work = Work(means.annotator, questions, means.llms, Path(cfg.store), cfg.max_failure_rate, means.retry, spending)
    works = Works(work, writing.work, counts) if writing else Works(work)
    if cfg.dry_run:
        work.asker = means.annotator.at_most()
        if work.asker is not means.annotator:
            log.info("A dry run counts the second annotator as if the first doubted everything: it will be asked about less")
        return dry_run(work, task.estimated, means.prices, folder, means.tries)
    save_config(folder, cfg)
    if task.compared and not task.asked.own:
        task.compared.ask_first(work, task.pools, task.asked, folder)
    keep_guidelines(folder, means.annotator)
    compare_guidelines(Annotations(Path(cfg.store)), task.asked)
    annotation = _annotation(cfg, task, folder)
    with work.timed():
        own = annotation.concluded().judgements if task.asked.own else None
    with tracked(cfg, folder) as job:
        try:
            _ask(cfg, means, task, work, own, folder)
        finally:  # what was judged is written however the asking ends
            if own is not None and task.compared and task.compared.closed:
                own = own.chosen(task.compared.every)
            spent = write_results(cfg, folder, job, means, task, annotation, own, works)
        if not spent["queries"]:
            failed = f"{len(work.progress.failures)} calls failed, see {folder / 'failures.jsonl'}"
            raise UserError(f"no query got a label: {failed}")
    log_table(log, f"Annotated: {folder}", ("", "number"), _rows(spent))
    return spent


def open_writing(cfg: DictConfig, llm: Mapping[str, Any]) -> Writing | None:
    """The questions that are to be written with the model of the config `llm`; None where the collection's own are taken."""
    source: QuestionSource = hydra.utils.instantiate(cfg.questions, _convert_="all")
    options: Any = OmegaConf.to_container(cfg.questions, resolve=True)
    split, store = cfg.dataset, Path(cfg.store)
    return source.writing(
        Setting(split.train, split.path, llm, store, cfg.seed, options, split.language, split.positive_grade, split.answers)
    )


def _check(cfg: DictConfig, means: Means, writing: Writing | None) -> None:
    """UserError for what the options ask together and cannot have."""
    if cfg.dry_run and not means.asked:
        raise UserError("dry_run=true: this annotator asks nothing; there is nothing to estimate")
    if writing and writing.missing and means.gate.questions:
        given = f"gate.questions={means.gate.questions}"
        raise UserError(f"{given}: the questions are not written yet, so nobody judged them; {WRITE}")
    if writing and cfg.dataset.judgements is not None:
        raise UserError("dataset.judgements= is of questions that are there, and questions= writes new ones; give one of them")


def _collection(cfg: DictConfig) -> Collection:
    split = cfg.dataset
    return open_training_split(
        split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
    )


def _annotation(cfg: DictConfig, task: Assignment, folder: Path) -> Annotation:
    """The pools in the store, before anything is asked of them."""
    annotations, asked, pools = Annotations(Path(cfg.store)), task.asked, task.pools
    if asked.own:
        return annotations.own(asked, pools.table)
    candidates: dict[str, Any] = OmegaConf.to_container(cfg.candidates, resolve=True)  # type: ignore[assignment]
    write_besides(folder, task.besides)
    return annotations.begin(asked, candidates, pools, {"folder": str(folder), "seed": cfg.seed}, task.besides, command_line())


def _ask(cfg: DictConfig, means: Means, task: Assignment, work: Work, own: JudgedColumns | None, folder: Path) -> None:
    if own is None:
        with progress_bar(work, means.prices) as bar:
            hydra.utils.instantiate(cfg.engine).run(work, bar)
    elif task.compared:
        task.compared.decide(task.asked, own.chosen(task.compared.every), folder, work.store)


def _rows(spent: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a run did and cost, as a table."""
    rows = [
        ("questions with labels", spent["queries"]),
        ("questions without", spent["queries_without_labels"]),
        ("passages labelled", spent["pairs"]),
        ("calls asked", spent["calls"]),
        ("calls from the store", spent["calls_answered_by_store"]),
        ("calls failed", spent["failed_calls"]),
        ("seconds", f"{spent['seconds']:.1f}"),
    ]
    costs = (("cost", "cost"), ("cost by people", "human_cost"))
    return rows + [(name, f"{spent[key]:.4g} {spent['currency']}") for name, key in costs if spent[key] is not None]
