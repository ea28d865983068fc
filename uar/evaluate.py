"""`python -m uar.evaluate model=DIR 'collections=[mini:test]'`: scores of a model, a retriever or a run file."""

import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.collections import Collection, open_collection
from uar.collections.collection_runs import of_queries
from uar.collections.presets import expand
from uar.collections.reference import distinct_slugs
from uar.errors import UserError
from uar.evaluation.evaluation_tracking import track_evaluation
from uar.evaluation.evaluator import Evaluator
from uar.evaluation.metrics_file import read_metrics
from uar.evaluation.significance import compare, read_scores, tell_other_collections, tell_untested, told
from uar.launch.entry import entry
from uar.retrievers.kind import is_bi_encoder
from uar.storage.files import write_json
from uar.storage.manifest import save_config, save_manifest
from uar.storage.runs import Run, read_run
from uar.tracking.artefacts import model_artefact
from uar.tracking.job import Job, tracked

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, folder: Path) -> float | None:
    """Score `model`, `retriever` or `run` on `collections`; returns the mean of the first of the `measures`."""
    if not cfg.collections:
        raise UserError("collections is empty; name at least one, such as 'collections=[mini:test]'")
    chosen = [n for n in ("model", "retriever", "run") if cfg[n] and (n != "retriever" or cfg.retriever.get("_target_"))]
    if not chosen or {"model", "retriever"} <= set(chosen):
        given = " and ".join(chosen) or "nothing"
        raise UserError(f"found {given}; give model=DIR, retriever=NAME, or run=FILE, alone or with one of them to re-rank it")
    if cfg.rag.llm and (cfg.rag.rewrite or cfg.rag.verify) and (cfg.run or cfg.retriever.get("runs")):
        raise UserError(
            "rag.rewrite and rag.verify search with other queries, which a run file has no passages of; give model=DIR or "
            "retriever=NAME alone"
        )
    references = expand(list(cfg.collections) if OmegaConf.is_list(cfg.collections) else cfg.collections)
    distinct_slugs(references)
    collections = [open_collection(reference, cfg.language) for reference in references]
    save_config(folder, cfg)
    evaluator = Evaluator(cfg, folder)
    with tracked(cfg, folder) as job:
        return _evaluate(cfg, folder, job, evaluator, chosen, collections)


def _evaluate(
    cfg: DictConfig, folder: Path, job: Job, evaluator: Evaluator, chosen: list[str], collections: list[Collection]
) -> float:
    if job.tracks_files and cfg.model and Path(cfg.model).is_dir():
        job.took(model_artefact(Path(cfg.model)))
    rank, name = _ranker(cfg, chosen)
    save_manifest(folder, model=name)
    baseline = {c.slug: read_scores(Path(cfg.baseline), c.slug) for c in collections} if cfg.baseline else None
    if baseline:
        tell_other_collections(Path(cfg.baseline), {c.slug: c.hash for c in collections})
    rows = evaluator.evaluate(collections, rank)
    if baseline:
        found = compare({slug: read_scores(folder, slug) for slug in baseline}, baseline)
        tell_untested(found, read_metrics(folder)["rag"])
        write_json(folder / "significance.json", found)
        for slug, values in found.items():
            log.info("%s against %s: %s", slug, cfg.baseline, told(values))
        job.numbers({"significance": found})
    track_evaluation(job, folder, collections)
    first = evaluator.measures[0]
    return sum(values[first] for values in rows.values()) / len(rows)


def _ranker(cfg: DictConfig, chosen: list[str]) -> tuple[Any, str | None]:
    """What ranks, and the name of the model or retriever that does."""
    model = None
    if "retriever" in chosen:
        model = hydra.utils.instantiate(cfg.retriever, _convert_="all")
        if not is_bi_encoder(model) and cfg.run:
            raise UserError(
                "found a run and a retriever that cannot re-rank it; give model=DIR or a bi-encoder, or one of the two alone"
            )
    elif cfg.model:
        from uar.retrievers.bi_encoder.encoder import BiEncoder

        model = BiEncoder(
            cfg.model,
            cfg.revision,
            pooling=cfg.pooling,
            normalize=cfg.normalize,
            query_prefix=cfg.query_prefix,
            passage_prefix=cfg.passage_prefix,
            query_length=cfg.query_length,
            passage_length=cfg.passage_length,
            token_budget=cfg.token_budget,
        )
        told_lengths = "%s reads queries of up to %d tokens and passages of up to %d"
        log.info(told_lengths, model.name, model.query_length, model.passage_length)
        log.info(
            "pooling %s, %s, before queries %r, before passages %r",
            *(model.pooling, "cosine" if model.normalize else "dot product", model.query_prefix, model.passage_prefix),
        )
    if is_bi_encoder(model):
        from uar.machine.precision import device

        model.to(device())
    name = getattr(model, "name", None)
    if not cfg.run:
        return model, name
    run = read_run(Path(cfg.run))

    def known(collection: Collection, query_ids: list[str]) -> Run:
        kept = of_queries(run, collection, query_ids, cfg.run)
        if model is None:
            return kept
        from uar.retrievers.bi_encoder.dense import rerank

        pools = {q: [d for d, _ in hits] for q, hits in kept.items()}
        return rerank(model, collection, pools, cfg.search.precision, source=cfg.run)

    return known, name


def main() -> None:
    entry("evaluate", evaluate)


if __name__ == "__main__":
    main()
