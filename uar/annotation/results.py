"""What an annotate run leaves in its folder: labels, texts, failures, costs, quality and the manifest."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uar.annotation.annotation import Annotation
from uar.annotation.annotation_tracking import Labelled, track
from uar.annotation.annotators import Annotator, Judged
from uar.annotation.assignment import Assignment
from uar.annotation.guidelines import compare_with_files
from uar.annotation.judged_blocks import JudgedColumns, of_queries
from uar.annotation.material import material
from uar.annotation.means import Means
from uar.annotation.outputs import DOUBTFUL, write_doubtful, write_labels, write_rationales
from uar.annotation.quality.from_files import judgements_of
from uar.annotation.quality.quality_report import Other, quality
from uar.collections import Corpus
from uar.errors import UserError
from uar.llm.chains import Chains
from uar.llm.costs.ledger import keep_rate, ledger, rate_name
from uar.llm.engines.work import Work
from uar.llm.failing import write_failures
from uar.llm.models import LLM, model_class
from uar.llm.progress import Progress, joined
from uar.llm.record import Outcome
from uar.llm.store.store import Store
from uar.storage.files import write_json, write_jsonl
from uar.storage.manifest import save_manifest
from uar.tracking.job import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Works:
    """What a run asked. `writing`: of the questions, with the counts of those that were kept; None where none were written."""

    judging: Work
    writing: Work | None = None
    question_counts: Mapping[str, Any] | None = None

    @property
    def every(self) -> list[Work]:
        return [self.judging] if self.writing is None else [self.writing, self.judging]


def write_results(
    cfg: DictConfig,
    folder: Path,
    job: Job,
    means: Means,
    task: Assignment,
    annotation: Annotation,
    own: JudgedColumns | None,
    works: Works,
) -> dict[str, Any]:
    """The ledger. `own`: what the annotator says without being asked."""
    annotator, collection, work = means.annotator, task.asked.collection, works.judging
    compare_with_files(annotator)
    if own is None:
        annotation.keep(work.results, work.failed)
    judged, calibrated = annotator.finish(collection, work.results_of(task.pools) if own is None else own, cfg.seed)
    judged = of_queries(judged, [q for q in judged if q not in task.besides])
    shown = task.compared.to_refine(judged) if task.compared else judged
    progress = joined(one.progress for one in works.every)
    spent = _spent(means, task, works, progress, write_labels(folder, judged), len(judged))
    if works.question_counts is not None:
        spent["questions"] = works.question_counts
    write_rationales(folder, judged)
    _write_texts(folder, annotator, work)
    write_failures(folder, progress.failures)
    write_json(folder / "ledger.json", spent)
    _doubtful(folder, shown, cfg.doubtful, collection.corpus)
    against = None
    if means.against is not None:
        against = Other(cfg.against, judgements_of(means.against, collection.positive_grade))
    measured = quality(folder, collection, annotator, task.pools, shown, calibrated, against)
    save_manifest(
        folder,
        collection=collection.hash,
        wording=collection.wording,
        model=spent["model"],
        store=str(cfg.store),
        annotation=None if task.asked.own else annotation.key,
    )
    if means.asked and len(means.llms) == 1 and works.writing is None and model_class(means.llms[0]).steady:
        keep_rate(work.store, rate_name(work.models[0], annotator), spent)
    plain: dict[str, Any] = OmegaConf.to_container(cfg.annotator, resolve=True)  # type: ignore[assignment]
    track(job, folder, spent, measured, collection, Labelled(plain, work.models, shown))
    _tell_what_is_missing(progress, spent)
    return spent


def _spent(means: Means, task: Assignment, works: Works, progress: Progress, pairs: int, queries: int) -> dict[str, Any]:
    """`pairs`, `queries`: how many got labels."""
    models = works.judging.models or works.every[0].models
    unlabelled = len(task.pools.keys() - task.besides) - queries
    rows = task.pools.table.rows
    return {
        **ledger(progress, queries, pairs, sum(one.seconds for one in works.every), models, means.prices, unlabelled),
        "queries_for_calibration_alone": len(task.calibrating),
        "queries_for_gate_alone": len(task.at_gate),
        "models_served": {name: served for one in works.every for name, served in one.serves.items() if served},
        "material": material(task.asked.collection, rows if means.asked else rows[:0], means.annotator.words_shown),
    }


def _doubtful(folder: Path, judged: Judged, share: float | None, corpus: Corpus) -> None:
    """The list of questions for people, where it is wanted and the annotator says how sure it is."""
    if share is None or not judged:
        return
    try:
        number = write_doubtful(folder, judged, share, corpus)
    except UserError as error:
        log.warning("doubtful=%g: no list of questions for people: %s", share, error)
    else:
        path = folder / DOUBTFUL
        log.info("For people: %d questions of most doubt, %s (acquire=listed acquire.path=%s)", number, path, path)


def _write_texts(folder: Path, annotator: Annotator, work: Work) -> None:
    """What the first model wrote of the questions besides judgements, from the store."""
    for name, asker in annotator.written().items():
        chains = Chains(asker, Store(work.store), work.questions.name, [LLM(work.models[0])])
        write_jsonl(folder / f"{name}s.jsonl", ({"query_id": q, name: text} for q, text in chains.run(work.questions)))


def _tell_what_is_missing(progress: Progress, spent: Mapping[str, Any]) -> None:
    for stage, counts in progress.stages.items():
        partial, appended = (counts.notes[name] for name in ("partial_rankings", "passages_appended"))
        if partial:
            line = "%s: %d of %d rankings are partial; the %d passages that they leave out follow as they stand"
            log.warning(line, stage, partial, counts.outcomes[Outcome.OK], appended)
        if cut := counts.notes["selections_cut"]:
            line = "%s: %d of %d selections name more passages than annotator.max_selected; the first count"
            log.warning(line, stage, cut, counts.outcomes[Outcome.OK])
        if untold := counts.notes["replies_without_tokens"]:
            line = "%s: %d of %d replies do not say how many tokens they took; tokens and cost in ledger.json are too low"
            log.warning(line, stage, untold, counts.asked)
    unlabelled = spent["queries_without_labels"]
    if progress.failures or (unlabelled and spent["queries"]):  # without any label the error that ends the run says so
        line = "%d calls failed, %d of %d questions are without labels"
        log.warning(line, len(progress.failures), unlabelled, spent["queries"] + unlabelled)
