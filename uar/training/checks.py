"""What training cannot do is told before anything is made; what it will do otherwise than was asked is logged."""

import logging
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry
from omegaconf import DictConfig, OmegaConf

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.labels import Stage
from uar.labels.example_columns import negatives_of, positives_of, sources_of, weights_of
from uar.launch.located import located
from uar.launch.override_text import options_of
from uar.losses import Loss, learns_from_others, name_of, takes_utility
from uar.pools import BM25Pool, PoolSource
from uar.retrievers.trainable import Encoder, Trainable
from uar.training.identity import options_named

log = logging.getLogger(__name__)
UNJUDGED = {"false_negative_margin": None, "random_negatives": 0}  # options of passages without a utility, and what is none
AT_LEAST_1 = (
    "batch_size", "passages_per_query", "epochs", "steps", "dev_queries", "checkpoint_every", "patience", "step_queries"
)  # fmt: skip
OF_JUDGEMENTS = ("annotator", "annotators", "annotation", "llm", "llms", "combine")  # options
HALF_WEIGHTS = ("bf16-true", "16-true")  # precisions of Lightning
ANEW = "popen"  # how Lightning calls it that each process runs the command
DONE = (DDPStrategy, SingleDeviceStrategy)
SHARDING = ("fsdp", "deepspeed", "model_parallel", "modelparallel")


def check_options(cfg: DictConfig) -> None:
    """Of a composed train config, UserError naming the option."""
    _check_retriever(cfg)
    _check_trainer(cfg)
    _check_training(cfg)
    _tell_without_effect(cfg)


def _check_retriever(cfg: DictConfig) -> None:
    target = cfg.retriever.get("_target_")
    made = located(target, "retriever") if target else None
    if not (isinstance(made, type) and issubclass(made, Trainable)):  # a function makes several rankers one
        raise UserError(
            f"retriever={made.__name__ if made else 'none'} has no weights to train; choose a bi-encoder, such as "
            "retriever=minilm, or score this one with python -m uar.evaluate"
        )
    options: Any = OmegaConf.to_container(cfg.retriever, resolve=True)
    made.check_training(options)


def _check_trainer(cfg: DictConfig) -> None:
    if cfg.trainer.precision in HALF_WEIGHTS:
        raise UserError(
            f"trainer.precision={cfg.trainer.precision}: small steps of weights are lost in it; give bf16 or fp16, which "
            "keep the weights in fp32, and for less memory retriever.dtype=bf16 retriever.lora_rank=16"
        )
    _check_strategy(cfg.trainer.strategy)


def _check_strategy(given: Any) -> None:
    strategy = _words(given)
    if sharded := next((kind for kind in SHARDING if kind in strategy.lower()), None):
        raise UserError(
            f"trainer.strategy={strategy}: {sharded} splits weights among devices, which this training cannot (gradients "
            "would be clipped by the norm of a part); take ddp, and for a large encoder retriever.dtype=bf16 "
            "retriever.lora_rank=16 retriever.gradient_checkpointing=true"
        )
    options = given if OmegaConf.is_dict(given) else dict(StrategyRegistry).get(strategy, {}).get("init_params", {})
    allowed = ", ".join(["auto", *filter(_is_done, StrategyRegistry.available_strategies())])
    if (start := options.get("start_method", ANEW)) != ANEW:
        raise UserError(
            f"trainer.strategy={strategy}: its processes begin by {start} within the training, whose threads and batches "
            f"cannot go with them; allowed: {allowed}; take ddp, each of whose processes is the whole command"
        )
    if not (OmegaConf.is_dict(given) or strategy == "auto" or _is_done(strategy)):
        raise UserError(f"trainer.strategy={strategy}: it is not known here; allowed: {allowed}")


def _is_done(strategy: str) -> bool:
    """Whether Lightning's strategy of that name has whole weights on each device, and processes that run the command."""
    known = dict(StrategyRegistry).get(strategy, {"strategy": None})
    return known["strategy"] in DONE and known["init_params"].get("start_method", ANEW) == ANEW


def _check_training(cfg: DictConfig) -> None:
    options = cfg.training
    for name in (*(f"training.{name}" for name in AT_LEAST_1), "trainer.log_every_n_steps"):
        value = OmegaConf.select(cfg, name)
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{name}={value}: a whole number from 1 on is needed")
    if options.steps is not None and cfg.trainer.max_steps != -1:
        raise UserError(
            f"training.steps={options.steps} is of all stages together, trainer.max_steps={cfg.trainer.max_steps} of each; "
            "give one of the two"
        )
    if not 0 <= options.warmup <= 1:
        raise UserError(f"training.warmup={options.warmup}: a share of a stage's steps from 0 to 1 is needed, such as 0.1")
    for name in ("invariance", "misleading"):
        if options[name] < 0:
            raise UserError(f"training.{name}={options[name]}: a weight from 0 on is needed; 0 leaves the term out")


def _tell_without_effect(cfg: DictConfig) -> None:
    if cfg.training.patience is not None and not cfg.dataset.dev:
        log.warning("training.patience=%s has no effect without a dev split (dataset.dev=null)", cfg.training.patience)
    takers = (cfg.label_source, cfg.combine)
    if cfg.human_frac is not None and not any(options_named("human_frac", OmegaConf.to_container(t)) for t in takers):
        log.warning("human_frac=%s has no effect: this label_source takes no human labels by share", cfg.human_frac)


def _words(strategy: Any) -> str:
    """The name of a strategy, or of the class that a config names."""
    return str(strategy.get("_target_", "")) if OmegaConf.is_dict(strategy) else str(strategy)


def tell_unread(cfg: DictConfig, overrides: Sequence[str], annotated: bool, pooled: bool) -> None:
    """Warn of what the command line gives and these labels do not read. `annotated`: whether they come from judgements of an
    LLM; `pooled`: whether their passages are those of `candidates`."""
    unread: dict[str, str] = {}
    if not annotated:
        unread |= dict.fromkeys(OF_JUDGEMENTS, "these labels take no judgements of an LLM")
    if not pooled:
        unread["candidates"] = "these labels have passages of their own, and it makes the pools of the dev split alone"
    takers = [OmegaConf.to_container(taker, resolve=True) for taker in (cfg.label_source, cfg.combine)]
    if not any(0 < share < 1 for taker in takers for share in options_named("human_frac", taker)):
        unread["acquire"] = "no human labels of a share of the questions are taken (human_frac)"
    if not cfg.training.invariance:
        unread["variants"] = "training.invariance=0 learns from no variants"
    for override, path in options_of(overrides):
        group, _, option = path.partition(".")
        if group in unread and (option or group != "candidates"):  # whose kind decides on training.random_negatives
            log.warning("%s has no effect on what is learnt: %s", override, unread[group])


def check_examples(cfg: DictConfig, tests: Sequence[Collection]) -> None:
    """UserError where an annotator shows labels of a test as examples."""
    of_run = (cfg.annotator, *cfg.annotators.values())
    for shown in (OmegaConf.select(one, key) for one in of_run for key in ("examples_from", "member.examples_from")):
        if shown is not None and any(open_collection(shown).judged_as(test) for test in tests):
            raise UserError(f"annotator.examples_from={shown} is a test of this run (dataset.test); give a training split")


def check_dimensions(dimensions: Any, retriever: Trainable) -> list[int] | None:
    """The option `training.dimensions` as a list; UserError where vectors have no such first numbers to learn from."""
    if dimensions is None:
        return None
    if not isinstance(retriever, Encoder) or not retriever.has_first_numbers:
        none = "no vectors whose first numbers are searched alone" if isinstance(retriever, Encoder) else "no vectors"
        raise UserError(f"training.dimensions={dimensions}: {retriever.name} makes {none}; set it to null")
    there, given = retriever.dim, list(dimensions) if OmegaConf.is_list(dimensions) else []
    if not given or len(set(given)) < len(given) or not all(isinstance(n, int) and 1 <= n <= there for n in given):
        raise UserError(
            f"training.dimensions={dimensions}: different whole numbers from 1 to {there} are needed, the numbers of a vector "
            f"of {retriever.name}; give a list such as [{there},{max(1, there // 4)}], or null"
        )
    if there not in given:
        log.warning(
            "training.dimensions=%s: whole vectors, of %d numbers, are not learnt from; search with search.dimensions=%d",
            given, there, max(given),
        )  # fmt: skip
    return given


def random_negatives(asked: int | None, pools: PoolSource, retriever: Trainable) -> int:
    """Passages of the whole corpus that each query adds to a batch. None: one where pools are BM25's alone, which never show
    some passages, and an encoder searches them: if it has not learnt to put these down it may find them for every question.
    A union with a dense part shows those that an encoder finds, and a cross-encoder searches nothing."""
    if asked is not None and asked < 0:
        raise UserError(f"training.random_negatives={asked}: a whole number from 0 on is needed, or null")
    return int(isinstance(pools, BM25Pool) and isinstance(retriever, Encoder)) if asked is None else asked


def tell_other_step(cfg: DictConfig, stages: Sequence[Stage], devices: int) -> None:
    """Warn of stages where all devices together see another number of queries a step than the settings are meant for."""
    meant, batches = cfg.training.step_queries, cfg.trainer.get("accumulate_grad_batches", 1)
    sizes = {stage.name: stage.batch_size or cfg.training.batch_size for stage in stages}
    for size in dict.fromkeys(sizes.values()):
        found = size * devices * batches
        if meant is None or found == meant:
            continue
        where = ", ".join(name for name, own in sizes.items() if own == size)
        together = f", trainer.accumulate_grad_batches={batches}" if batches != 1 else ""
        log.warning(
            "A step of stage %s sees %d queries (batch_size=%d on each of %d devices%s), and the settings are meant for "
            "training.step_queries=%d: scores will differ; choose another batch_size or trainer.devices",
            where, found, size, devices, together, meant,
        )  # fmt: skip


def check_stage(stage: Stage, loss: Loss, cfg: DictConfig) -> None:
    """Tell what a stage cannot learn from, or will do otherwise than was asked."""
    stage.check(loss)
    own = stage.loss or loss
    for option, none in () if learns_from_others(own) else UNJUDGED.items():
        if (given := cfg.training[option]) not in (None, none):
            raise UserError(
                f"stage {stage.name}: training.{option}={given} has no meaning for loss={name_of(own)}, which learns from "
                "judged passages alone; leave it null, or use loss=summed_marginal"
            )
    per_query = stage.passages_per_query or cfg.training.passages_per_query
    batch_size = stage.batch_size or cfg.training.batch_size
    if per_query < 1 or batch_size < 1:
        raise UserError(f"training.batch_size={batch_size}, passages_per_query={per_query}: at least 1 is needed")
    if stage.warmup is not None and not 0 <= stage.warmup <= 1:
        raise UserError(f"stage {stage.name}: warmup={stage.warmup}: a share of its steps from 0 to 1 is needed")
    weightless = int((weights_of(stage.examples) == 0).sum())
    if weightless:
        log.info("Stage %s: %d of %d queries have weight 0 and are left out", stage.name, weightless, len(stage.examples))
    if (stage.most_positives == 1 or _most(stage) == 1) and not takes_utility(own):
        log.info("Stage %s: %s", stage.name, _alike(stage, cfg))
    positives, negatives = positives_of(stage.examples), negatives_of(stage.examples)
    bare = 0 if stage.candidates or takes_utility(own) else int((negatives == 0).sum())
    if bare and 1 in (batch_size, len(stage.examples)):
        raise UserError(
            f"stage {stage.name}: {bare} queries have no negative, and a batch of one query has none from others; "
            "take more questions, a larger training.batch_size or candidates.depth"
        )
    if bare:
        log.info("Stage %s: %d queries have no negative of their own, and learn from those of others", stage.name, bare)
    small = int((positives + negatives < per_query).sum())
    if small and stage.candidates is None:
        log.info(
            "Stage %s: %d of %d queries have fewer than passages_per_query=%d passages, and take all they have",
            stage.name, small, len(stage.examples), per_query,
        )  # fmt: skip


def _most(stage: Stage) -> int:
    """Positives of the query that has the most."""
    return int(positives_of(stage.examples).max(initial=0))


def _alike(stage: Stage, cfg: DictConfig) -> str:
    """That losses do not differ where a query learns one positive, and what gives it several."""
    if _most(stage) > 1:
        remedy = "label_source.positives=all takes all that a query has"
    elif any("llm" in source for source in sources_of(stage.examples)):
        given = OmegaConf.select(cfg, "annotator.threshold")
        threshold = "" if given is None else f" (now {given:g})"
        remedy = f"a larger annotator.threshold{threshold}, or a larger candidates.depth to annotate, gives several"
    else:
        remedy = "these labels have no more; those of an LLM may (label_source=llm, annotator.threshold)"
    losses = "contrastive, joint, lse_pair and summed_marginal are the same loss"
    return f"every query learns one positive, with which {losses}; {remedy}"
