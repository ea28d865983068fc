"""The train command: labels -> batches -> model -> scores, all in one run folder."""

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from uar.annotation.annotation_tracking import annotations_artefact
from uar.collections import Collection, open_collection, open_training_split, resolve
from uar.collections.presets import averaged, expand
from uar.collections.reference import distinct_slugs
from uar.evaluation.evaluation_tracking import track_evaluation
from uar.evaluation.evaluator import Evaluator
from uar.evaluation.metrics_file import read_metrics, update_metrics
from uar.evaluation.retrieving import as_configured
from uar.expansion.variants import Variants
from uar.labels import Stage
from uar.labels.example_columns import Examples, positives_by_source
from uar.labels.label_table import write_label_table
from uar.launch.small_table import log_table
from uar.launch.with_workers import with_workers
from uar.losses import Loss, name_of, takes_utility
from uar.machine.precision import device
from uar.pools import PoolSource, pools_of_other_split
from uar.retrievers.bi_encoder.model_card import push, write_model_card
from uar.retrievers.ranker import Ranker
from uar.retrievers.trainable import Encoder, Trainable
from uar.storage.files import digest, read_json
from uar.storage.manifest import save_config, save_manifest
from uar.tracking.artefacts import artefact_name, folder_artefact, model_artefact
from uar.tracking.job import Job, tracked
from uar.training.baselines import Baselines, chosen
from uar.training.batches import BatchStream
from uar.training.checks import check_dimensions, check_examples, check_options, check_stage, random_negatives, tell_other_step
from uar.training.context import Used, label_context
from uar.training.dev_score import DevScore
from uar.training.exported import check_restored, drop_checkpoints, is_done, of_a_few, restore
from uar.training.fit import Fitting, Settings
from uar.training.further_terms import FurtherTerms
from uar.training.further_texts import FurtherTexts, further_texts, misleading_of, variants_of
from uar.training.identity import keep_identity, label_hash, loss_hash, parts_of, schedule_hash, start_anew
from uar.training.mining import with_mined_negatives
from uar.training.optimizer import fused
from uar.training.processes import check_shared_folder, own_processes, requeued
from uar.training.shared_pools import SharedPools, pools_key
from uar.training.steps import with_steps
from uar.training.trainer import make_trainer, precision_of, scoring_precision

log = logging.getLogger(__name__)
IDENTITY = Path("checkpoints", "identity.json")
OF_SCHEDULE = ("max_steps", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")


@with_workers
def train(cfg: DictConfig, folder: Path) -> float | None:
    """Train, export to `model/`, evaluate on `dataset.test`. Returns the `objective` of searches."""
    check_shared_folder()
    cfg.resume = cfg.resume or (requeued() and (folder / IDENTITY).is_file())
    check_options(cfg)
    chosen(cfg.baselines)  # a fault in it is told before anything is read
    if own_processes(cfg, folder):
        metrics = read_metrics(folder)
        return objective(metrics["train"], averaged(metrics["retrieval"]))
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    split = cfg.dataset
    collection = open_training_split(
        split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
    )
    tests = [reference for test in expand(list(cfg.dataset.test)) if (reference := resolve(test, cfg.dataset.path))]
    distinct_slugs(tests)
    check_examples(cfg, tests)
    test_collections = [open_collection(test, split.language) for test in tests]  # a fault in them is told before the training
    dev_reference = resolve(cfg.dataset.dev, cfg.dataset.path)
    dev = open_collection(dev_reference, split.language) if dev_reference else None
    pool_source: PoolSource = hydra.utils.instantiate(cfg.candidates)
    loss: Loss = hydra.utils.instantiate(cfg.loss)
    annotations: list[Used] = []
    context = label_context(cfg, collection, pool_source, folder, annotations)
    stages = hydra.utils.instantiate(cfg.label_source, _convert_="all").stages(context)
    stages = [replace(stage, examples=Examples.of(stage.examples, collection.corpus)) for stage in stages]
    stages = with_steps(stages, cfg.training.steps, cfg.training.batch_size)
    for stage in stages:
        check_stage(stage, loss, cfg)
    evaluator = Evaluator(_for_scoring(cfg), folder, cfg.dataset.answers)  # a fault in RAG is told before the training
    retriever: Trainable = hydra.utils.instantiate(cfg.retriever, _convert_="all")
    cfg.training.random_negatives = random_negatives(cfg.training.random_negatives, pool_source, retriever)
    if (dimensions := check_dimensions(cfg.training.dimensions, retriever)) and isinstance(retriever, Encoder):
        retriever.dimensions = dimensions
    further = _further(cfg, collection, stages, retriever, folder)
    labels = ""
    ranker: Ranker = retriever
    if rank_zero_only.rank == 0:
        ranker = as_configured(retriever, cfg)  # a fault in it is told before the training
        evaluator.check(test_collections, ranker)
        baselines = Baselines(cfg, retriever)
        labels = label_hash(stages)
        if not cfg.resume:
            start_anew(folder)
        devices = make_trainer(cfg, [], folder).world_size  # of all machines, -1 counted
        identity = _identity(cfg, collection, stages, labels, loss, retriever, devices)
        identity |= {"further texts": further.hash} if further else {}
        keep_identity(folder / IDENTITY, identity, cfg.resume)
        tell_other_step(cfg.training, devices)
        save_config(folder, cfg)
        write_label_table(folder / "labels.parquet", stages)
    checkpoints = folder / "checkpoints"
    with tracked(cfg, folder) as job:
        job.facts({"stages": [stage.name for stage in stages]})
        for labelled in [used.labelled for used in annotations if used.labelled] if job.tracks_files else ():
            job.took(annotations_artefact(folder, collection.slug, collection.hash, labelled, context.query_ids))
        fitting = Fitting(
            settings=_settings(cfg, loss),
            streams=_streams(cfg, collection, retriever, loss, further),
            trainer=partial(make_trainer, cfg, job.loggers, folder),
            mine=_miner(cfg, collection, retriever),
            dev=_dev_score(cfg, dev, collection, pool_source, folder),
            folder=checkpoints,
            given=partial(hydra.utils.instantiate, cfg.retriever, _convert_="all"),
        )
        trained_before = cfg.resume and is_done(checkpoints)
        if trained_before:
            restore(cfg, folder / "model", retriever)
        summaries, trained = fitting.fit(retriever, stages, cfg.resume, trained_before)
        if rank_zero_only.rank > 0:
            return None
        if any(stage.candidates for stage in stages):
            write_label_table(folder / "labels.parquet", trained)
            labels = label_hash(trained)
        precision = precision_of(cfg.trainer)
        retriever.to(device())
        vectors = of_a_few(retriever, collection, scoring_precision(precision))
        if trained_before:
            check_restored(checkpoints, vectors)
        else:
            retriever.save(folder / "model")
        facts = [used.facts for used in annotations]
        made_from = {"collection": collection.hash, "labels": labels, "annotations": facts}
        assisted = collection.assisted
        save_manifest(folder, **made_from, model=retriever.name, precision=precision, assisted_pairs=assisted)
        seconds = sum(stage_summary["seconds"] for stage_summary in summaries.values())
        update_metrics(folder, train=summaries, time={"train": round(seconds, 2)})
        facts_of_stage = list(dict.fromkeys(fact for of_stage in summaries.values() for fact in of_stage))
        rows = [[name, *map(of_stage.get, facts_of_stage)] for name, of_stage in summaries.items()]
        log_table(log, f"Trained: {folder / 'model'}", ["stage", *facts_of_stage], rows)
        scores = evaluator.evaluate(test_collections, ranker)
        write_model_card(folder / "model", _facts(cfg, folder, collection, trained, loss, retriever, ranker))
        track_evaluation(job, folder, test_collections)
        if job.tracks_files:
            _track_files(job, folder, collection)
        job.numbers({"baselines": baselines.compare(folder, test_collections, evaluator)})
    if not cfg.training.keep_checkpoints:
        drop_checkpoints(checkpoints, vectors)
    if cfg.hub.repo:
        push(folder / "model", cfg.hub.repo, cfg.hub.private)
    return objective(summaries, scores)


def _track_files(job: Job, folder: Path, collection: Collection) -> None:
    """The labels and the model as artefacts, with what the manifest says."""
    manifest = read_json(folder / "manifest.json")
    job.facts({"manifest": manifest})
    summaries = {name: manifest[name] for name in ("git_commit", "collection", "labels")}
    job.made(folder_artefact("labels", collection.slug, folder, ["labels.parquet"], **summaries))
    model = model_artefact(folder / "model")
    job.made(replace(model, name=artefact_name("model", collection.slug), facts={**summaries, "retriever": manifest["model"]}))


def objective(stages: dict[str, dict[str, Any]], scores: dict[str, dict[str, float]]) -> float | None:
    """What a search maximises: the last stage's best dev nDCG@10; without a dev split the mean test nDCG@10 of the collections
    that have one."""
    dev: float | None = list(stages.values())[-1]["best dev nDCG@10"] if stages else None
    if dev is not None:
        return dev
    found = [values["nDCG@10"] for values in scores.values() if "nDCG@10" in values]
    return sum(found) / len(found) if found else None


def _settings(cfg: DictConfig, loss: Loss) -> Settings:
    options = cfg.training
    return Settings(
        loss=loss,
        optimizer=fused(hydra.utils.instantiate(options.optimizer, _convert_="all"), precision_of(cfg.trainer)),
        warmup=options.warmup,
        seed=cfg.seed,
        checkpoint_every=options.checkpoint_every,
        patience=options.patience,
        false_negative_margin=options.false_negative_margin,
        grad_cache=options.grad_cache,
        schedule=hydra.utils.instantiate(options.scheduler, _convert_="all"),
        keep_checkpoints=options.keep_checkpoints,
        keep_better=options.keep_better,
        terms=FurtherTerms(options.invariance, options.misleading),
    )


def _identity(
    cfg: DictConfig,
    collection: Collection,
    stages: Sequence[Stage],
    labels: str,
    loss: Loss,
    retriever: Trainable,
    devices: int,
) -> dict[str, str]:
    trainer = {name: cfg.trainer.get(name) for name in OF_SCHEDULE}
    return {
        "collection": collection.hash,
        "labels": labels,
        "loss": loss_hash(stages, loss),
        "retriever": digest(parts_of("retriever", cfg), retriever.name),
        "precision": precision_of(cfg.trainer),
        "schedule": schedule_hash(stages, parts_of("training", cfg), trainer, cfg.seed),
        "number of devices": str(devices),
    }


def _further(
    cfg: DictConfig, collection: Collection, stages: Sequence[Stage], retriever: Trainable, folder: Path
) -> FurtherTexts | None:
    """What the terms beside the loss look at; None where there are none."""
    texts, options = {}, cfg.training
    if options.invariance:
        variants: Variants = hydra.utils.instantiate(cfg.variants, _convert_="all")
        texts = variants_of(collection, stages, variants, options.variants, folder)
    false = misleading_of(collection) if options.misleading else {}
    return further_texts(collection, texts, false, retriever) if texts or false else None


def _streams(cfg: DictConfig, collection: Collection, retriever: Trainable, loss: Loss, further: FurtherTexts | None) -> Any:
    passages, queries = retriever.passage_tokens(collection), retriever.query_tokens(collection)

    def stream(stage: Stage, rank: int, world: int) -> BatchStream:
        size = stage.batch_size or cfg.training.batch_size
        per_query = stage.passages_per_query or cfg.training.passages_per_query
        judged_alone = takes_utility(stage.loss or loss)
        random = 0 if judged_alone else cfg.training.random_negatives
        return BatchStream(
            stage, queries, collection.query_rows, passages, collection.corpus, size, per_query, cfg.seed, rank, world, random,
            further,
        )  # fmt: skip

    return stream


def _miner(cfg: DictConfig, collection: Collection, retriever: Trainable) -> Callable[[Stage, int, Path], Stage]:
    settings = parts_of("retriever", cfg)

    def mine(stage: Stage, number: int, path: Path) -> Stage:
        return with_mined_negatives(stage, collection, retriever, path, [number, settings, retriever.name, cfg.seed])

    return mine


def _dev_score(
    cfg: DictConfig, dev: Collection | None, collection: Collection, pool_source: PoolSource, folder: Path
) -> DevScore | None:
    if dev is None:
        log.info("No dev split (dataset.dev=null): the last epoch of each stage is kept")
        return None
    judged = [q for q in dev.queries if dev.positives(q)][: cfg.training.dev_queries]
    if not judged:
        log.info("%s has no question with a positive: the last epoch of each stage is kept", dev.reference)
        return None
    key = pools_key(OmegaConf.to_container(cfg.candidates, resolve=True), dev)
    path = folder / "candidates" / (f"{dev.slug}.dev.jsonl" if dev.slug == collection.slug else f"{dev.slug}.jsonl")
    pools = SharedPools(path, key, dev, lambda wanted: pools_of_other_split(pool_source, dev, wanted))(judged)
    return DevScore(dev, pools, scoring_precision(precision_of(cfg.trainer)))


def _for_scoring(cfg: DictConfig) -> DictConfig:
    """The config that the tests are scored with: `search.precision: auto` is the trainer's."""
    if OmegaConf.select(cfg, "search.precision") != "auto":
        return cfg
    own = deepcopy(cfg)
    own.search.precision = scoring_precision(precision_of(cfg.trainer))
    return own


def _facts(
    cfg: DictConfig,
    folder: Path,
    collection: Collection,
    stages: Sequence[Stage],
    loss: Loss,
    retriever: Trainable,
    ranker: Ranker,
) -> dict[str, Any]:
    """What the model card says."""
    manifest = read_json(folder / "manifest.json")
    counts = [(s.name, *of_source) for s in stages for of_source in positives_by_source(s.examples).items()]
    return {
        "collection": collection.reference,
        "collection_hash": collection.hash,
        "labels": [{"stage": stage, "source": source, "positives": n} for stage, source, n in counts],
        "label_hash": manifest["labels"],
        "loss": [name_of(stage.loss or loss) for stage in stages],
        "retriever": retriever.name,
        "kind": retriever.kind,
        "metrics": read_json(folder / "metrics.json"),
        "reranked": None if ranker is retriever else ranker.name,
        "git_commit": manifest["git_commit"],
        "license": cfg.hub.license,
        "data_license": cfg.hub.data_license,
    }
