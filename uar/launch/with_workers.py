"""The option `workers` of a command."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.machine.workers import working

Result = TypeVar("Result")


def with_workers(task: Callable[[DictConfig, Path], Result]) -> Callable[[DictConfig, Path], Result]:
    """The task of a command, whose parts go to the workers of its config."""

    @wraps(task)
    def run(cfg: DictConfig, folder: Path) -> Result:
        given = OmegaConf.select(cfg, "workers._target_")
        with working(hydra.utils.instantiate(cfg.workers) if given else None):
            return task(cfg, folder)

    return run
