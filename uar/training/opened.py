"""What a train config names, opened and checked: a fault in it is told before anything is trained."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.collections import Collection, open_collection, open_training_split, resolve
from uar.collections.presets import expand
from uar.collections.reference import distinct_slugs
from uar.evaluation.evaluator import Evaluator
from uar.expansion.variants import Variants
from uar.labels import Stage
from uar.labels.example_columns import Examples
from uar.losses import Loss
from uar.pools import PoolSource
from uar.retrievers.trainable import Encoder, Trainable
from uar.tracking.typed import typed
from uar.training.checks import check_dimensions, check_examples, check_stage, random_negatives, tell_unread
from uar.training.context import Used, label_context
from uar.training.further_texts import FurtherTexts, further_texts, misleading_of, variants_of
from uar.training.shared_pools import SharedPools
from uar.training.steps import with_steps
from uar.training.trainer import precision_of, scoring_precision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """`query_ids`: the questions that labels were asked for. `annotations`: those that labels came from. `further`: texts
    that the terms beside the loss look at."""

    collection: Collection
    dev: Collection | None
    tests: list[Collection]
    pool_source: PoolSource
    query_ids: Sequence[str]
    annotations: list[Used]
    stages: list[Stage]
    loss: Loss
    retriever: Trainable
    further: FurtherTexts | None
    evaluator: Evaluator


def opened(cfg: DictConfig, folder: Path) -> Opened:
    """Pools and texts that are made on the way are kept in `folder`; `cfg.training.random_negatives` and
    `cfg.training.learning_rate` are settled."""
    split = cfg.dataset
    collection = open_training_split(
        split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
    )
    references = [reference for test in expand(list(split.test)) if (reference := resolve(test, split.path))]
    distinct_slugs(references)
    tests = [open_collection(reference, split.language) for reference in references]
    check_examples(cfg, tests)
    dev_reference = resolve(split.dev, split.path)
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
    if (given := typed()) and given.config_name == "train":  # not in a round of a loop
        pooled = any(isinstance(pools, SharedPools) and pools.asked for pools in (context.pools, context.unaware))
        tell_unread(cfg, given.overrides, bool(annotations), pooled)
    evaluator = Evaluator(_for_scoring(cfg), folder, split.answers)
    retriever: Trainable = hydra.utils.instantiate(cfg.retriever, _convert_="all")
    cfg.training.random_negatives = random_negatives(cfg.training.random_negatives, pool_source, retriever)
    if cfg.training.learning_rate is None:
        cfg.training.learning_rate = retriever.learning_rate
        if cfg.training.optimizer.get("lr", 0.0) is None:  # taken from it before it was settled
            cfg.training.optimizer.lr = retriever.learning_rate
        if cfg.training.optimizer.get("lr") == retriever.learning_rate:  # and not one of its own
            log.info("training.learning_rate=%g, as suits %s", retriever.learning_rate, retriever.name)
    if (dimensions := check_dimensions(cfg.training.dimensions, retriever)) and isinstance(retriever, Encoder):
        retriever.dimensions = dimensions
    return Opened(
        collection=collection,
        dev=dev,
        tests=tests,
        pool_source=pool_source,
        query_ids=context.query_ids,
        annotations=annotations,
        stages=stages,
        loss=loss,
        retriever=retriever,
        further=_further(cfg, collection, stages, retriever, folder),
        evaluator=evaluator,
    )


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


def _for_scoring(cfg: DictConfig) -> DictConfig:
    """The config that the tests are scored with: `search.precision: auto` is the trainer's."""
    if OmegaConf.select(cfg, "search.precision") != "auto":
        return cfg
    own = deepcopy(cfg)
    own.search.precision = scoring_precision(precision_of(cfg.trainer))
    return own
