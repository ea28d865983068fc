"""The Lightning Trainer of a stage, and the arithmetic that it computes in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from uar.launch.override_text import quote_run_folder
from uar.launch.side_by_side import several_devices
from uar.machine.precision import bf16_is_fast, device
from uar.training.callbacks import CommandEndsAtSigterm, WholeCheckpoints
from uar.training.training_bar import TrainingBar

LOGGED, KEPT = (1, 50), (200, 2_000)  # steps from one to the next, on a CPU and on a GPU
PRECISIONS = {"bf16": "bf16-mixed", "fp32": "32-true", "fp16": "16-mixed"}


def precision_of(trainer: DictConfig) -> str:
    """`trainer.precision`, auto settled by what the trainer computes on: one of PRECISIONS, or a name of Lightning's own."""
    if trainer.precision == "auto":
        return "bf16" if bf16_is_fast(computes_on(trainer)) else "fp32"
    return str(trainer.precision)


def computes_on(trainer: DictConfig) -> str:
    """cpu or cuda."""
    return "cpu" if trainer.accelerator == "cpu" else device().type


def often(given: int | None, trainer: DictConfig, on_cpu: int, on_gpu: int) -> int:
    """Steps from one to the next of what makes a GPU wait: as `given`, else by what the trainer computes on."""
    if given is not None:
        return given
    return on_cpu if computes_on(trainer) == "cpu" else on_gpu


def scoring_precision(precision: str) -> str:
    """That of vectors that are scored: fp32, bf16 or fp16."""
    halves = {"bf16": "bf16", "fp16": "fp16", "16": "fp16"}
    return halves.get(precision.split("-")[0], "fp32")


def make_trainer(
    cfg: DictConfig, loggers: list[Any], folder: Path, callbacks: Sequence[L.Callback] = (), **more: Any
) -> L.Trainer:
    """Of a composed train config."""
    precision = precision_of(cfg.trainer)
    quote_run_folder(folder)
    return hydra.utils.instantiate(
        cfg.trainer,
        precision=PRECISIONS.get(precision, precision),
        log_every_n_steps=often(cfg.trainer.log_every_n_steps, cfg.trainer, *LOGGED),
        strategy=_strategy(cfg),
        logger=loggers,
        callbacks=[*callbacks, *([TrainingBar()] if cfg.trainer.enable_progress_bar else []), CommandEndsAtSigterm()],
        default_root_dir=str(folder),
        use_distributed_sampler=False,  # the stream gives every process its own part
        reload_dataloaders_every_n_epochs=1,  # else the epoch after a resumed one ends early
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[WholeCheckpoints(), *_environments()],
        **more,
    )


def _strategy(cfg: DictConfig) -> Any:
    """DDP, whose buckets of gradients are the gradients; another one stays as it is given. Its graph is static but where the
    gradients of several batches make a step: torch then fails at the first of these, which exchanges no gradients."""
    if cfg.trainer.strategy != "ddp" and not (cfg.trainer.strategy == "auto" and several_devices(cfg)):
        return cfg.trainer.strategy
    together = cfg.trainer.get("accumulate_grad_batches", 1)
    return DDPStrategy(gradient_as_bucket_view=True, static_graph=together == 1)


def _environments() -> list[SLURMEnvironment]:
    """SLURM's, without Lightning's own checkpoint at its signal, which later stages would take for theirs."""
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]
