"""Loggers of a run: CSV always at hand, W&B offline unless a key is there."""

import csv
import netrc
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from uar.files import write_text
from uar.manifest import mask


class RunCSV(CSVLogger):
    """`metrics.csv` of one job. A job that is resumed goes on with the rows of its earlier parts."""

    def __init__(self, folder: str, resume: bool = False) -> None:
        super().__init__(save_dir=folder, name="", version="csv")
        path = Path(self.log_dir) / "metrics.csv"
        self._before: list[dict[str, Any]] = []
        if resume and path.is_file():
            with path.open(newline="") as file:
                self._before = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            path.unlink()  # written anew with the rows that are kept

    def rewind(self, stage: int, step: int) -> None:
        """Keep of the earlier rows those before `step` of `stage`, once."""
        kept = [r for r in self._before if "stage" in r and (r["stage"], r["step"]) < (stage, step)]
        self._before = []
        for row in kept:
            at = int(row.pop("step"))
            self.experiment.log_metrics(row, at)
        self.save()


def csv_logger(folder: str, resume: bool = False) -> RunCSV:
    """`metrics.csv` in `folder`/csv."""
    return RunCSV(folder, resume)


def rewind(loggers: Sequence[Any], stage: int, step: int) -> None:
    """A resumed job goes on at `step` of `stage`: what was logged later is logged again."""
    for logger in loggers:
        if isinstance(logger, RunCSV) and rank_zero_only.rank == 0:
            logger.rewind(stage, step)


def wandb_logger(
    folder: str, project: str, name: str, group: str | None = None, mode: str = "auto", resume: bool = False
) -> WandbLogger:
    """One W&B run for the job, the same one where the job is resumed. `mode`: auto (online where a key is known, else
    offline), online, offline or disabled."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLogger(
        project=project, name=name, group=group, save_dir=folder, mode=mode, id=_run_id(folder, resume), resume="allow"
    )


def _run_id(folder: str, resume: bool) -> str:
    """Kept in the run folder by process 0, which alone has a run."""
    path = Path(folder) / "wandb.id"
    if resume and path.is_file():
        return path.read_text()
    chosen = secrets.token_hex(4)
    if rank_zero_only.rank == 0:
        write_text(path, chosen)
    return chosen


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
