"""The train command: labels -> batches -> model -> scores, all in one run folder."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from uar.annotation.annotation_tracking import annotations_artefact
from uar.collections import Collection
from uar.collections.presets import averaged
from uar.evaluation.evaluation_tracking import track_evaluation
from uar.evaluation.metrics_file import AFTER, given_kept, read_metrics, update_metrics
from uar.evaluation.retrieving import as_configured
from uar.labels import Stage
from uar.labels.example_columns import positives_by_source
from uar.labels.label_table import write_label_table
from uar.launch.resolvers import CONF
from uar.launch.side_by_side import started_outside
from uar.launch.small_table import log_table
from uar.launch.with_workers import with_workers
from uar.losses import Loss, learns_from_others, name_of
from uar.machine.heap import release_heap
from uar.machine.precision import device
from uar.pools import pools_of_other_split
from uar.retrievers.kinds import kinds
from uar.retrievers.model_card import push, write_model_card
from uar.retrievers.ranker import Ranker
from uar.retrievers.trainable import Trainable
from uar.retrievers.trained_scale import keep_scale
from uar.storage.files import digest, read_json
from uar.storage.manifest import save_config, save_manifest
from uar.tracking.artefacts import artefact_name, folder_artefact, model_artefact
from uar.tracking.job import Job, tracked
from uar.tracking.loggers import begin_stage
from uar.tracking.stages import StageStart
from uar.training.baselines import Baselines, chosen
from uar.training.batches import BatchStream
from uar.training.checks import check_options, tell_other_step
from uar.training.dev_score import DevScore
from uar.training.exported import check_restored, drop_checkpoints, is_done, of_a_few, restore
from uar.training.fit import Fitting, Settings
from uar.training.further_terms import FurtherTerms
from uar.training.identity import (
    keep_identity,
    label_hash,
    loss_hash,
    options_named,
    parts_of,
    schedule_hash,
    start_anew,
)
from uar.training.lent import CHECKPOINTS, IDENTITY, borrow
from uar.training.mining import with_mined_negatives
from uar.training.opened import Opened, opened
from uar.training.optimizer import fused
from uar.training.processes import check_shared_folder, own_processes, requeued
from uar.training.seen_questions import tell_seen
from uar.training.shared_pools import SharedPools, pools_key
from uar.training.trainer import KEPT, make_trainer, often, precision_of, scoring_precision

log = logging.getLogger(__name__)
FEW = 20  # dev questions, whose mean nDCG@10 has a standard error of some 0.08


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
    work = opened(cfg, folder)
    retriever, checkpoints = work.retriever, folder / CHECKPOINTS
    dev = _dev_score(cfg, folder, work)
    begun = _begin(cfg, folder, work, dev) if rank_zero_only.rank == 0 else None
    work.collection.corpus.leave()
    release_heap()
    lent = begun is not None and begun.lent
    with tracked(cfg, folder) as job:
        _tell_labels(job, folder, work)
        trained_before = lent or (cfg.resume and is_done(checkpoints))
        if trained_before:
            restore(cfg, folder / "model", retriever)
        fitting = _fitting(cfg, folder, work, job, dev)
        nothing_left = cfg.resume and fitting.finished(work.stages)
        summaries, stages = fitting.fit(retriever, work.stages, cfg.resume or lent, trained_before)
        if nothing_left:  # else the stage that goes on says what stays in the logs
            begin_stage(job.loggers, StageStart(len(stages), "", 0, sum(of["steps"] for of in summaries.values())))
        if begun is None:
            return None
        vectors = _export(cfg, folder, work, stages, begun.labels, trained_before)
        _tell_training(folder, summaries)
        scores = work.evaluator.evaluate(work.tests, begun.ranker)
        write_model_card(folder / "model", _facts(cfg, folder, work, stages, begun.ranker))
        track_evaluation(job, folder, work.tests)
        if job.tracks_files:
            _track_files(job, folder, work.collection)
        job.numbers({"baselines": begun.baselines.compare(folder, work.tests, work.evaluator, begun.ranker)})
    if not cfg.training.keep_checkpoints:
        drop_checkpoints(checkpoints, vectors)
    if cfg.hub.repo:
        push(folder / "model", cfg.hub.repo, cfg.hub.private)
    return objective(summaries, scores)


@dataclass(frozen=True)
class Begun:
    """What process 0 keeps until the others are done. `labels`: hash of those that the training began with. `lent`: whether
    another run's model was taken."""

    ranker: Ranker
    baselines: Baselines
    labels: str
    lent: bool


def _begin(cfg: DictConfig, folder: Path, work: Opened, dev: DevScore | None) -> Begun:
    """Check what the run is scored with, then write to its folder what it is."""
    ranker = as_configured(work.retriever, cfg)
    work.evaluator.retrieving.refuse_unread(ranker)
    work.evaluator.check(work.tests, ranker)
    baselines = Baselines(cfg, work.retriever)
    labels = label_hash(work.stages)
    if not cfg.resume:
        start_anew(folder)
    devices = make_trainer(cfg, [], folder).world_size  # of all machines, -1 counted
    keep_identity(folder / IDENTITY, _identity(cfg, work, labels, devices, dev), cfg.resume)
    tell_other_step(cfg, work.stages, devices)
    save_config(folder, cfg)
    write_label_table(folder / "labels.parquet", work.stages)
    tell_seen(work.stages, work.collection, dev and dev.asked, work.tests)
    return Begun(ranker, baselines, labels, lent=cfg.trained_by is not None and not cfg.resume and _borrowed(cfg, folder))


def _borrowed(cfg: DictConfig, folder: Path) -> bool:
    if not started_outside():
        return borrow(cfg.trained_by, folder)
    log.warning(
        "trained_by=%s is not looked at where torchrun or SLURM starts the processes, so this run trains; a model that is "
        "there is scored by python -m uar.evaluate model=RUN/model", cfg.trained_by,
    )  # fmt: skip
    return False


def _fitting(cfg: DictConfig, folder: Path, work: Opened, job: Job, dev: DevScore | None) -> Fitting:
    return Fitting(
        settings=_settings(cfg, work.loss),
        streams=_streams(cfg, work),
        trainer=partial(make_trainer, cfg, job.loggers, folder),
        mine=_miner(cfg, work.collection, work.retriever),
        dev=dev,
        folder=folder / CHECKPOINTS,
        given=partial(hydra.utils.instantiate, cfg.retriever, _convert_="all"),
    )


def _export(
    cfg: DictConfig, folder: Path, work: Opened, stages: Sequence[Stage], labels: str, trained_before: bool
) -> np.ndarray:
    """Write the trained model and the manifest. Returns vectors of a few texts, by which a later start knows the model."""
    retriever, precision = work.retriever, precision_of(cfg.trainer)
    if any(stage.candidates for stage in work.stages):  # negatives were mined since
        write_label_table(folder / "labels.parquet", stages)
        labels = label_hash(stages)
    retriever.to(device())
    vectors = of_a_few(retriever, work.collection, scoring_precision(precision))
    if trained_before:
        check_restored(folder / CHECKPOINTS, vectors)
    else:
        retriever.save(folder / "model")
        keep_scale(folder / "model", retriever)
    save_manifest(
        folder,
        collection=work.collection.hash,
        labels=labels,
        annotations=[used.facts for used in work.annotations],
        model=retriever.name,
        precision=precision,
        assisted_pairs=work.collection.assisted,
    )
    return vectors


def _tell_labels(job: Job, folder: Path, work: Opened) -> None:
    job.facts({"stages": [stage.name for stage in work.stages]})
    for labelled in [used.labelled for used in work.annotations if used.labelled] if job.tracks_files else ():
        collection = work.collection
        job.took(annotations_artefact(folder, collection.slug, collection.hash, labelled, work.query_ids))


def _tell_training(folder: Path, summaries: dict[str, dict[str, Any]]) -> None:
    seconds = sum(of_stage["seconds"] for of_stage in summaries.values())
    update_metrics(folder, train=summaries, time={"train": round(seconds, 2)})
    facts = list(dict.fromkeys(fact for of_stage in summaries.values() for fact in of_stage))
    rows = [[name, *map(of_stage.get, facts)] for name, of_stage in summaries.items()]
    title = "Trained, with the weights from before kept" if given_kept(summaries) else "Trained"
    log_table(log, f"{title}: {folder / 'model'}", ["stage", *facts], rows)


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
    dev: float | None = list(stages.values())[-1][AFTER] if stages else None
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
        checkpoint_every=often(options.checkpoint_every, cfg.trainer, *KEPT),
        patience=options.patience,
        false_negative_margin=options.false_negative_margin,
        grad_cache=options.grad_cache,
        schedule=hydra.utils.instantiate(options.scheduler, _convert_="all"),
        keep_checkpoints=options.keep_checkpoints,
        keep_better=options.keep_better,
        terms=FurtherTerms(options.invariance, options.misleading),
    )


def _identity(cfg: DictConfig, work: Opened, labels: str, devices: int, dev: DevScore | None) -> dict[str, str]:
    own = [parts_of("training", cfg), parts_of("trainer", cfg), _mined_from(cfg), cfg.seed]
    identity = {
        "collection": work.collection.hash,
        "labels": labels,
        "loss": loss_hash(work.stages, work.loss),
        "retriever": digest(parts_of("retriever", cfg), work.retriever.name),
        "precision": precision_of(cfg.trainer),
        "schedule": schedule_hash(work.stages, *own),
        "number of devices": str(devices),
        "dev split": dev.key if dev else "none",
    }
    return identity | ({"further texts": work.further.hash} if work.further else {})


def _streams(cfg: DictConfig, work: Opened) -> Callable[[Stage, int, int, torch.device], BatchStream]:
    collection = work.collection
    passages, queries = work.retriever.passage_tokens(collection), work.retriever.query_tokens(collection)

    def stream(stage: Stage, rank: int, world: int, device: torch.device) -> BatchStream:
        size = stage.batch_size or cfg.training.batch_size
        per_query = stage.passages_per_query or cfg.training.passages_per_query
        random = cfg.training.random_negatives if learns_from_others(stage.loss or work.loss) else 0
        return BatchStream(
            stage, queries, collection.query_rows, passages, collection.corpus, size, per_query, cfg.seed, rank, world, random,
            work.further, device,
        )  # fmt: skip

    return stream


def _mined_from(cfg: DictConfig) -> list[Any]:
    """Where stages look their negatives up again."""
    return options_named("candidates", OmegaConf.to_container(cfg.label_source, resolve=True))


def _miner(cfg: DictConfig, collection: Collection, retriever: Trainable) -> Callable[[Stage, int, Path], Stage]:
    """Searches as tests are searched; vectors of a model that goes on learning are not kept."""
    search: Any = OmegaConf.to_container(cfg.search, resolve=True)
    search["embeddings"] = None
    open_search = partial(hydra.utils.instantiate, search, _convert_="all")
    found_by = {name: value for name, value in search.items() if name not in ("processes", "recall_queries")}
    settings = [parts_of("retriever", cfg), retriever.name, _mined_from(cfg), found_by, cfg.seed]

    def mine(stage: Stage, number: int, path: Path) -> Stage:
        return with_mined_negatives(stage, collection, retriever, path, [number, *settings], open_search)

    return mine


def _dev_score(cfg: DictConfig, folder: Path, work: Opened) -> DevScore | None:
    dev = work.dev
    undecided = "the last epoch of each stage is kept, and nothing says whether training did good (training.keep_better)"
    if dev is None:
        log.info("No dev split (dataset.dev=null): %s", undecided)
        return None
    judged = [q for q in dev.queries if dev.positives(q)][: cfg.training.dev_queries]
    if not judged:
        log.warning("%s has no question with a positive: %s", dev.reference, undecided)
        return None
    key = pools_key(OmegaConf.to_container(cfg.candidates, resolve=True), dev)
    path = folder / "candidates" / (f"{dev.slug}.dev.jsonl" if dev.slug == work.collection.slug else f"{dev.slug}.jsonl")
    pools = SharedPools(path, key, dev, lambda wanted: pools_of_other_split(work.pool_source, dev, wanted))(judged)
    deciding = sum(not set(dev.positives(q)).isdisjoint(pools[q]) for q in judged)
    if not deciding:
        log.warning("%s: no pool holds a positive: %s", dev.reference, undecided)
        return None
    tell = log.warning if deciding < FEW else log.info
    few = ", few enough for chance to do it" if deciding < FEW else ""
    tell("%s: nDCG@10 over %d questions chooses the weights%s", dev.reference, deciding, few)
    return DevScore(dev, pools, scoring_precision(precision_of(cfg.trainer)))


def _facts(cfg: DictConfig, folder: Path, work: Opened, stages: Sequence[Stage], ranker: Ranker) -> dict[str, Any]:
    """What the model card says."""
    manifest = read_json(folder / "manifest.json")
    counts = [(s.name, *of_source) for s in stages for of_source in positives_by_source(s.examples).items()]
    return {
        "collection": work.collection.reference,
        "collection_hash": work.collection.hash,
        "labels": [{"stage": stage, "source": source, "positives": n} for stage, source, n in counts],
        "label_hash": manifest["labels"],
        "loss": [name_of(stage.loss or work.loss) for stage in stages],
        "retriever": work.retriever.name,
        "kind": work.retriever.kind,
        "own_kind": type(work.retriever) not in kinds([CONF]).values(),
        "given_kept": given_kept(read_metrics(folder)["train"]),
        "metrics": read_json(folder / "metrics.json"),
        "reranked": None if ranker is work.retriever else ranker.name,
        "git_commit": manifest["git_commit"],
        "license": cfg.hub.license,
        "data_license": cfg.hub.data_license,
    }
