"""The train command: labels -> batches -> model -> scores, all in one run folder."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from uar.candidates import PoolSource, write_pools
from uar.collections import Collection, open_collection, open_training_split, resolve
from uar.collections.presets import averaged, expand
from uar.collections.reference import distinct_slugs
from uar.errors import UserError
from uar.evaluation.command import Evaluator
from uar.evaluation.metrics_file import read_metrics, update_metrics
from uar.evaluation.tracking import track_evaluation
from uar.files import digest, read_json
from uar.labels import Stage
from uar.labels.table import write_label_table
from uar.losses import Loss, name_of
from uar.manifest import save_config, save_manifest
from uar.precision import bf16_is_fast, device
from uar.retrievers.bi_encoder import BiEncoder
from uar.retrievers.model_card import push, write_model_card
from uar.tracking.artefacts import Annotations, annotations_artefact, artefact_name, folder_artefact, model_artefact
from uar.tracking.job import Job, tracked
from uar.training.batches import BatchStream
from uar.training.callbacks import WholeCheckpoints
from uar.training.context import label_context
from uar.training.dev_score import DevScore
from uar.training.fit import Fitting, Settings
from uar.training.identity import keep_identity, label_hash, loss_hash, schedule_hash
from uar.training.mining import with_mined_negatives
from uar.training.processes import check_shared_folder, own_processes

log = logging.getLogger(__name__)
PRECISIONS = {"bf16": "bf16-mixed", "fp32": "32-true", "fp16": "16-mixed"}


def train(cfg: DictConfig, folder: Path) -> float | None:
    """Train, export to `model/`, evaluate on `dataset.test`. Returns the `objective` of searches."""
    check_shared_folder()
    if own_processes(cfg, folder):
        metrics = read_metrics(folder)
        return objective(metrics["train"], averaged(metrics["retrieval"]))
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    collection = open_training_split(cfg.dataset.train, cfg.dataset.path, cfg.dataset.positive_grade, cfg.dataset.answers)
    tests = [reference for test in expand(list(cfg.dataset.test)) if (reference := resolve(test, cfg.dataset.path))]
    distinct_slugs(tests)
    test_collections = [open_collection(test) for test in tests]  # a fault in them is told before the training
    dev_reference = resolve(cfg.dataset.dev, cfg.dataset.path)
    dev = open_collection(dev_reference) if dev_reference else None
    pool_source: PoolSource = hydra.utils.instantiate(cfg.candidates)
    loss: Loss = hydra.utils.instantiate(cfg.loss)
    annotations: list[Annotations] = []
    context = label_context(cfg, collection, pool_source, folder, annotations)
    stages = hydra.utils.instantiate(cfg.label_source, _convert_="all").stages(context)
    for stage in stages:
        _check(stage, loss, cfg)
    evaluator = Evaluator(cfg, folder, cfg.dataset.answers)  # a fault in the options of RAG is told before the training
    retriever: BiEncoder = hydra.utils.instantiate(cfg.retriever, _convert_="all")
    identity = _identity(cfg, collection, stages, loss, retriever)
    keep_identity(folder / "checkpoints" / "identity.json", identity, cfg.resume)
    save_config(folder, cfg)
    write_label_table(folder / "labels.parquet", stages)
    with tracked(cfg, folder) as job:
        job.facts({"stages": [stage.name for stage in stages]})
        for found in annotations if job.tracks_files else ():
            job.took(annotations_artefact(folder, collection.slug, collection.hash, found, context.query_ids))
        start = time.perf_counter()
        fitting = Fitting(
            settings=_settings(cfg, loss),
            streams=_streams(cfg, collection, retriever),
            trainer=partial(_trainer, cfg, job.loggers, folder),
            mine=lambda stage, path: with_mined_negatives(stage, collection, retriever, path),
            dev=_dev_score(cfg, dev, pool_source, folder),
            folder=folder / "checkpoints",
        )
        told, trained = fitting.fit(retriever, stages, cfg.resume)
        seconds = time.perf_counter() - start
        if rank_zero_only.rank > 0:
            return None
        labels = identity["labels"]
        if any(stage.candidates for stage in stages):
            write_label_table(folder / "labels.parquet", trained)
            labels = label_hash(trained)
        retriever.save(folder / "model")
        save_manifest(folder, collection=collection.hash, labels=labels, model=retriever.name)
        update_metrics(folder, train=told, time={"train": round(seconds, 2)})
        retriever.to(device())
        scores = evaluator.evaluate(test_collections, retriever)
        write_model_card(folder / "model", _facts(cfg, folder, collection, trained, loss, retriever))
        track_evaluation(job, folder, test_collections)
        if job.tracks_files:
            _track_files(job, folder, collection)
    if cfg.hub.repo:
        push(folder / "model", cfg.hub.repo, cfg.hub.private)
    return objective(told, scores)


def _track_files(job: Job, folder: Path, collection: Collection) -> None:
    """The labels and the model as artefacts, with what the manifest says."""
    manifest = read_json(folder / "manifest.json")
    job.facts({"manifest": manifest})
    told = {name: manifest[name] for name in ("git_commit", "collection", "labels")}
    job.made(folder_artefact("labels", collection.slug, folder, ["labels.parquet"], **told))
    model = model_artefact(folder / "model")
    job.made(replace(model, name=artefact_name("model", collection.slug), facts={**told, "retriever": manifest["model"]}))


def objective(stages: dict[str, dict[str, Any]], scores: dict[str, dict[str, float]]) -> float | None:
    """What a search maximises: the last stage's best dev nDCG@10; without a dev split the mean test nDCG@10 of the collections
    that have one."""
    dev: float | None = list(stages.values())[-1]["best dev nDCG@10"] if stages else None
    if dev is not None:
        return dev
    found = [values["nDCG@10"] for values in scores.values() if "nDCG@10" in values]
    return sum(found) / len(found) if found else None


def _check(stage: Stage, loss: Loss, cfg: DictConfig) -> None:
    """Tell what a stage cannot learn from, or will do otherwise than was asked."""
    stage.check(loss)
    per_query = stage.passages_per_query or cfg.training.passages_per_query
    batch_size = stage.batch_size or cfg.training.batch_size
    if per_query < 1 or batch_size < 1:
        raise UserError(f"training.batch_size={batch_size}, passages_per_query={per_query}: at least 1 is needed")
    bare = sum(not e.negatives for e in stage.examples) if stage.candidates is None else 0
    if bare and batch_size == 1:
        raise UserError(
            f"stage {stage.name}: {bare} queries have no negative, and a batch of one query has none from others; "
            "take a larger training.batch_size or candidates.depth"
        )
    if bare:
        log.info("Stage %s: %d queries have no negative of their own, and learn from those of others", stage.name, bare)
    small = sum(len(e.positives) + len(e.negatives) < per_query for e in stage.examples)
    if small and stage.candidates is None:
        log.info(
            "Stage %s: %d of %d queries have fewer than passages_per_query=%d passages, and take all they have",
            stage.name, small, len(stage.examples), per_query,
        )  # fmt: skip


def _settings(cfg: DictConfig, loss: Loss) -> Settings:
    options = cfg.training
    optimizer: partial = hydra.utils.instantiate(options.optimizer, _convert_="all")
    if optimizer.func is torch.optim.AdamW and _precision(cfg) == "fp32":
        optimizer = partial(optimizer, fused=True)  # many times as fast; in mixed precision Lightning cannot clip with it
    return Settings(
        loss=loss,
        optimizer=optimizer,
        warmup=options.warmup,
        seed=cfg.seed,
        checkpoint_every=options.checkpoint_every,
        patience=options.patience,
        false_negative_margin=options.false_negative_margin,
        grad_cache=options.grad_cache,
    )


def _identity(
    cfg: DictConfig, collection: Collection, stages: Sequence[Stage], loss: Loss, retriever: BiEncoder
) -> dict[str, str]:
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    training = {k: v for k, v in plain["training"].items() if k != "checkpoint_every"}
    trainer = {k: plain["trainer"].get(k) for k in ("max_steps", "devices", "num_nodes", "accumulate_grad_batches")}
    return {
        "collection": collection.hash,
        "labels": label_hash(stages),
        "loss": loss_hash(stages, loss),
        "retriever": digest(plain["retriever"], retriever.name),
        "schedule": schedule_hash(stages, training, trainer, cfg.seed),
    }


def _streams(cfg: DictConfig, collection: Collection, retriever: BiEncoder) -> Any:
    passages, queries = retriever.passage_tokens(collection), retriever.query_tokens(collection)

    def stream(stage: Stage, rank: int, world: int) -> BatchStream:
        used = list(dict.fromkeys(d for e in stage.examples for d in (*e.positives, *e.negatives, *e.ignored)))
        passage_rows = dict(zip(used, collection.corpus.rows(used), strict=True))
        size = stage.batch_size or cfg.training.batch_size
        per_query = stage.passages_per_query or cfg.training.passages_per_query
        return BatchStream(
            stage, queries, collection.query_rows, passages, passage_rows, size, per_query, cfg.seed, rank, world
        )

    return stream


def _dev_score(cfg: DictConfig, dev: Collection | None, pool_source: PoolSource, folder: Path) -> DevScore | None:
    if dev is None:
        log.info("No dev split (dataset.dev=null): the last epoch of each stage is kept")
        return None
    judged = [q for q in dev.queries if dev.positives(q)][: cfg.training.dev_queries]
    if not judged:
        log.info("%s has no question with a positive: the last epoch of each stage is kept", dev.reference)
        return None
    pools = pool_source.pools(dev, judged)
    write_pools(folder / "candidates" / f"{dev.slug}.jsonl", pools)
    halves = {"bf16": "bf16", "fp16": "fp16", "16": "fp16"}
    return DevScore(dev, pools, halves.get(_precision(cfg).split("-")[0], "fp32"))


def _precision(cfg: DictConfig) -> str:
    """`trainer.precision` with auto settled: one of PRECISIONS, or a name of Lightning's own."""
    if cfg.trainer.precision == "auto":
        return "bf16" if bf16_is_fast() else "fp32"
    return str(cfg.trainer.precision)


def _trainer(cfg: DictConfig, loggers: list[Any], folder: Path, **more: Any) -> L.Trainer:
    return hydra.utils.instantiate(
        cfg.trainer,
        precision=PRECISIONS.get(_precision(cfg), _precision(cfg)),
        logger=loggers,
        default_root_dir=str(folder),
        use_distributed_sampler=False,  # the stream gives every process its own part
        reload_dataloaders_every_n_epochs=1,  # else the epoch after a resumed one ends early
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[WholeCheckpoints()],
        **more,
    )


def _facts(
    cfg: DictConfig, folder: Path, collection: Collection, stages: Sequence[Stage], loss: Loss, retriever: BiEncoder
) -> dict[str, Any]:
    """What the model card says."""
    manifest = read_json(folder / "manifest.json")
    counts = Counter((s.name, p.source) for s in stages for e in s.examples for p in e.pairs() if p.label)
    return {
        "collection": collection.reference,
        "collection_hash": collection.hash,
        "labels": [{"stage": stage, "source": source, "positives": n} for (stage, source), n in counts.items()],
        "label_hash": manifest["labels"],
        "loss": [name_of(stage.loss or loss) for stage in stages],
        "retriever": retriever.name,
        "metrics": read_json(folder / "metrics.json"),
        "git_commit": manifest["git_commit"],
        "license": cfg.hub.license,
        "data_license": cfg.hub.data_license,
    }
