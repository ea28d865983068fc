"""The train command: labels -> batches -> model -> scores, all in one run folder."""

import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from uar.annotation.engines import identity_of
from uar.annotation.replay import kept_judgements
from uar.annotation.run import llm_configs
from uar.annotation.stages import Judgement
from uar.annotation.store import Store
from uar.candidates import PoolSource, write_pools
from uar.collections import Collection, open_collection, open_training_split, resolve
from uar.collections.reference import MINI, distinct_slugs
from uar.errors import UserError
from uar.evaluation.command import Evaluator
from uar.evaluation.metrics_file import update_metrics
from uar.files import digest
from uar.labels import LabelContext, Stage
from uar.labels.table import write_label_table
from uar.manifest import save_config, save_manifest
from uar.precision import bf16_is_fast, device
from uar.retrievers.bi_encoder import BiEncoder
from uar.training.batches import BatchStream
from uar.training.dev_score import DevScore
from uar.training.fit import fit
from uar.training.loggers import finish, open_loggers

log = logging.getLogger(__name__)
PRECISIONS = {"bf16": "bf16-mixed", "fp32": "32-true", "fp16": "16-mixed"}


def train(cfg: DictConfig, folder: Path) -> float | None:
    """Train, export to `model/`, evaluate on `dataset.test`. Returns the mean test nDCG@10 for sweeps, where there is one."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    collection = open_training_split(cfg.dataset.train, cfg.dataset.path, cfg.dataset.positive_grade)
    tests = [reference for test in cfg.dataset.test if (reference := resolve(test, cfg.dataset.path))]
    distinct_slugs(tests)
    test_collections = [open_collection(test) for test in tests]  # a fault in them is told before the training
    dev_reference = resolve(cfg.dataset.dev, cfg.dataset.path)
    dev = open_collection(dev_reference) if dev_reference else None
    pool_source: PoolSource = hydra.utils.instantiate(cfg.candidates)
    stages = hydra.utils.instantiate(cfg.label_source, _convert_="all").stages(_context(cfg, collection, pool_source, folder))
    save_config(folder, cfg)
    write_label_table(folder / "labels.parquet", stages)
    retriever: BiEncoder = hydra.utils.instantiate(cfg.retriever, _convert_="all")
    loggers = open_loggers(cfg)
    try:
        start = time.perf_counter()
        told = fit(
            retriever,
            stages,
            loss=hydra.utils.instantiate(cfg.loss),
            optimizer=hydra.utils.instantiate(cfg.training.optimizer, _convert_="all"),
            warmup=cfg.training.warmup,
            streams=_streams(cfg, collection, retriever),
            dev=_dev_score(cfg, dev, pool_source, folder),
            trainer=partial(_trainer, cfg, loggers, folder),
            folder=folder / "checkpoints",
            resume=cfg.resume,
            checkpoint_every=cfg.training.checkpoint_every,
        )
        seconds = time.perf_counter() - start
        if _rank() > 0:
            return None
        retriever.save(folder / "model")
        save_manifest(folder, collection=collection.hash, labels=_label_hash(stages), model=retriever.name)
        update_metrics(folder, train=told, time={"train": round(seconds, 2)})
        retriever.to(device())
        scores = Evaluator(cfg, folder).evaluate(test_collections, retriever)
        for logger in loggers:
            logger.log_metrics({f"{slug}/{m}": v for slug, values in scores.items() for m, v in values.items()})
    finally:
        finish(loggers)
    found = [values["nDCG@10"] for values in scores.values() if "nDCG@10" in values]
    return sum(found) / len(found) if found else None


def _context(cfg: DictConfig, collection: Collection, pool_source: PoolSource, folder: Path) -> LabelContext:
    query_ids = collection.head(cfg.limit)
    if not query_ids:
        raise UserError(f"{collection.reference}: the split has no queries; choose another one")

    def pools(wanted: Sequence[str]) -> Mapping[str, Sequence[str]]:
        found = pool_source.pools(collection, wanted)
        write_pools(folder / "candidates" / f"{collection.slug}.jsonl", found)
        return found

    def judgements() -> dict[str, list[Judgement]]:
        annotator = hydra.utils.instantiate(cfg.annotator, _convert_="all")
        models = [identity_of(llm) for llm in llm_configs(cfg)]
        shipped = [MINI / "annotations"] if collection.reference.startswith("mini:") else []
        judged = kept_judgements(collection, annotator, Store(Path(cfg.store), also=shipped), models, cfg.seed)
        if not judged:
            name = type(annotator).__name__
            raise UserError(
                f"{collection.reference}: the store {cfg.store} holds no annotations of it by {name} with "
                f"{', '.join(models)}; make them with: {_annotate_command()}"
            )
        return judged

    return LabelContext(collection, query_ids, pools, judgements, cfg.seed)


def _annotate_command() -> str:
    """The annotate command that goes with this run: its choices of dataset, pools, annotator, LLM and store."""
    shared = {"dataset", "candidates", "annotator", "llm", "llms", "store", "seed", "limit"}
    given = [o for o in HydraConfig.get().overrides.task if o.split("=")[0].split(".")[0] in shared]
    return shlex.join(["python", "annotate.py", *given])


def _streams(cfg: DictConfig, collection: Collection, retriever: BiEncoder) -> Any:
    passages, queries = retriever.passage_tokens(collection), retriever.query_tokens(collection)

    def stream(stage: Stage, rank: int, world: int) -> BatchStream:
        used = list(dict.fromkeys(d for e in stage.examples for d in (*e.positives, *e.negatives)))
        passage_rows = dict(zip(used, collection.corpus.rows(used), strict=True))
        size, per_query = cfg.training.batch_size, cfg.training.passages_per_query
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
        **more,
    )


def _label_hash(stages: Sequence[Stage]) -> str:
    return digest([(s.name, e.query_id, e.positives, e.negatives) for s in stages for e in s.examples])


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
