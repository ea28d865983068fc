"""Loggers of a run: CSV always at hand, W&B offline unless a key is there."""

import netrc
import os
from pathlib import Path
from typing import Any

import hydra
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from uar.manifest import mask


def csv_logger(folder: str) -> CSVLogger:
    """`metrics.csv` in `folder`/csv."""
    return CSVLogger(save_dir=folder, name="", version="csv")


def wandb_logger(folder: str, project: str, name: str, group: str | None = None, mode: str = "auto") -> WandbLogger:
    """One W&B run for the job. `mode`: auto (online where a key is known, else offline), online, offline or disabled."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLogger(project=project, name=name, group=group, save_dir=folder, mode=mode)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(Path.home() / ".netrc").authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def open_loggers(cfg: DictConfig) -> list[Any]:
    """The loggers that `cfg.logger` names, with the composed config logged, secrets masked."""
    loggers = [hydra.utils.instantiate(logger) for logger in (cfg.logger or {}).values()]
    for logger in loggers:
        logger.log_hyperparams(mask(OmegaConf.to_container(cfg, resolve=True)))
    return loggers


def finish(loggers: list[Any]) -> None:
    """Write what loggers hold back, and end the W&B run, if there is one, so that the next job of a process starts its own."""
    for logger in loggers:
        logger.save()
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
