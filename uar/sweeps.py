"""Jobs of a sweep: one that is done is not run again, one that fails is remembered until the others have ended."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from uar.files import digest, read_json, write_json

log = logging.getLogger(__name__)
FINISHED, FAILED = "finished.json", "failed.json"
NO_MATTER = ("name", "resume", "logger")  # of a config: another value gives the same run
folders: list[Path] = []  # of the sweeps that this process has started


class SweepFolder(Callback):
    """Told by Hydra where a sweep writes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folders.append(Path(str(config.hydra.sweep.dir)).absolute())


def in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def once(task: Callable[[DictConfig, Path], Any], cfg: DictConfig, folder: Path) -> Any:
    """Run a job of a sweep and mark its folder as finished; where it was finished before with the same composed config, return
    what it returned then. A job of another config, or one that was killed, runs; to run a finished one, delete its folder."""
    mark = folder / FINISHED
    config = config_hash(cfg)
    if mark.is_file():
        known = read_json(mark)
        if known["config"] == config:
            log.info("Skipped: %s was finished before with this config; delete the folder to run it again", folder)
            return known["returned"]
        if _first_process():
            mark.unlink(missing_ok=True)
    found = task(cfg, folder)
    if _first_process():
        write_json(mark, {"config": config, "returned": found if isinstance(found, int | float) else None})
    return found


def config_hash(cfg: DictConfig) -> str:
    """Of all options that the results may depend on."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return digest({key: value for key, value in plain.items() if key not in NO_MATTER})


def remember_failure(folder: Path, sweep: str, line: str) -> None:
    """Leave `line` in the job's folder, where the process that started the sweep finds it wherever the job ran."""
    if _first_process():
        write_json(folder / FAILED, {"sweep": sweep, "error": line})


def forget_failure(folder: Path) -> None:
    if _first_process():
        (folder / FAILED).unlink(missing_ok=True)


def failures(sweep: str) -> list[str]:
    """`FOLDER: what went wrong` of every job of the sweep that failed, wherever it ran, by folder."""
    found = []
    for path in sorted(p for root in set(folders) for p in root.rglob(FAILED)):
        try:
            said = read_json(path)
        except json.JSONDecodeError:
            continue
        if said.get("sweep") == sweep:
            found.append(f"{os.path.relpath(path.parent)}: {said['error']}")
    return found


def _first_process() -> bool:
    """Where torchrun or SLURM starts several processes of a job, the one that writes."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0
