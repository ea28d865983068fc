"""`python -m uar.evaluate model=DIR 'collections=[mini:test]'`: scores of a model, a retriever or a run file."""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.collections import Collection, open_collection
from uar.collections.presets import expand
from uar.collections.reference import distinct_slugs
from uar.errors import UserError
from uar.evaluation.baseline import Baseline
from uar.evaluation.evaluation_tracking import track_evaluation
from uar.evaluation.evaluator import Evaluator
from uar.evaluation.judged_by_llm import JudgedByLLM
from uar.evaluation.metrics_file import read_metrics
from uar.evaluation.retrieving import as_configured
from uar.evaluation.robustness import Robustness
from uar.evaluation.significance import COLUMNS, note_untested, table_of
from uar.launch.entry import entry
from uar.launch.small_table import log_table
from uar.launch.value_kinds import one_or_several
from uar.launch.with_workers import with_workers
from uar.reranking import ByRanker, Reranked
from uar.retrievers.ranker import Ranker
from uar.retrievers.run_file import RunFile
from uar.storage.files import write_json
from uar.storage.manifest import save_config, save_manifest
from uar.tracking.artefacts import model_artefact
from uar.tracking.job import Job, tracked

log = logging.getLogger(__name__)
OF_MODELS = (
    "pooling", "normalize", "query_prefix", "passage_prefix", "query_length", "passage_length", "token_budget"
)  # fmt: skip


@with_workers
def evaluate(cfg: DictConfig, folder: Path) -> float | None:
    """Score `model`, `retriever` or `run` on `collections`; returns the mean of the first of the `measures`."""
    if not cfg.collections:
        raise UserError("collections is empty; name at least one, such as 'collections=[mini:test]'")
    chosen = [n for n in ("model", "retriever", "run") if cfg[n] and (n != "retriever" or cfg.retriever.get("_target_"))]
    if not chosen or {"model", "retriever"} <= set(chosen):
        given = " and ".join(chosen) or "nothing"
        raise UserError(f"found {given}; give model=DIR, retriever=NAME, or run=FILE, alone or with one of them to re-rank it")
    references = expand(list(cfg.collections) if OmegaConf.is_list(cfg.collections) else cfg.collections)
    distinct_slugs(references)
    collections = [open_collection(reference, cfg.language) for reference in references]
    judged: JudgedByLLM | None = hydra.utils.instantiate(cfg.estimate)
    kinds = one_or_several("perturb", cfg.perturb or [])
    evaluator = Evaluator(cfg, folder, llm=judged, robustness=Robustness(kinds, cfg.perturb_seed) if kinds else None)
    with tracked(cfg, folder) as job:
        first = _evaluate(cfg, folder, job, evaluator, chosen, collections)
        if judged:
            judged.estimate_answers(folder)
        return first


def _evaluate(
    cfg: DictConfig, folder: Path, job: Job, evaluator: Evaluator, chosen: list[str], collections: list[Collection]
) -> float:
    if job.tracks_files and cfg.model and Path(cfg.model).is_dir():
        job.took(model_artefact(Path(cfg.model)))
    model = _model(cfg, chosen)
    ranker = as_configured(_first(cfg, model), cfg)
    evaluator.retrieving.refuse_unread(ranker)
    baseline = Baseline(Path(cfg.baseline), {c.slug: c.hash for c in collections}) if cfg.baseline else None
    evaluator.check(collections, ranker)
    save_config(folder, cfg)  # not before all is known to be right: the folder may hold another evaluation
    save_manifest(folder, model=model.name if model else None)
    rows = evaluator.evaluate(collections, ranker)
    if baseline:
        compared = baseline.compared(folder)
        note_untested(compared, read_metrics(folder)["rag"])
        write_json(folder / "significance.json", compared)
        for slug, values in compared.items():
            log_table(log, f"{slug} against {cfg.baseline}", COLUMNS, table_of(values))
        job.numbers({"significance": compared})
    track_evaluation(job, folder, collections)
    first = evaluator.measures[0]
    return sum(values[first] for values in rows.values()) / len(rows)


def _model(cfg: DictConfig, chosen: list[str]) -> Ranker | None:
    """What `model` or `retriever` names; None where neither is given."""
    if "retriever" in chosen:
        retriever: Ranker = hydra.utils.instantiate(cfg.retriever, _convert_="all")
        return retriever
    if not cfg.model:
        return None
    from uar.retrievers.model_folder import open_model  # brings torch, which BM25 has no use for

    model = open_model(cfg.model, cfg.revision, **{name: cfg[name] for name in OF_MODELS})
    if model.reading:
        log.info("%s reads %s", model.name, model.reading)
    return model


def _first(cfg: DictConfig, model: Ranker | None) -> Ranker:
    """What ranks before `rerank`: the model, the run file, or the run file re-ranked by the model."""
    if model is None:
        return RunFile(cfg.run)
    return Reranked(RunFile(cfg.run), ByRanker(model)) if cfg.run else model


def main() -> None:
    entry("evaluate", evaluate)


if __name__ == "__main__":
    main()
