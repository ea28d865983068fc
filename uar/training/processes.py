"""Who starts the processes of a run: Lightning, torchrun or SLURM; and a sweep whose jobs have several each."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from uar.errors import UserError
from uar.launch.config_folders import config_folders, named
from uar.launch.folders import names_its_folder
from uar.launch.override_text import literal, quoted
from uar.launch.side_by_side import several_devices, started_outside
from uar.tracking.typed import JOB, typed

log = logging.getLogger(__name__)


def requeued() -> bool:
    """Whether SLURM runs the job again, after a preemption or a node's failure: it then goes on without being told."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def check_shared_folder() -> None:
    """UserError where several processes would each name a run folder by their own clock."""
    chosen = HydraConfig.get()
    if started_outside() and chosen.mode == RunMode.RUN and not names_its_folder(chosen):
        raise UserError(
            "several processes are started from outside: give name= or hydra.run.dir= so that they share a run folder"
        )


def own_processes(cfg: DictConfig, folder: Path) -> bool:
    """Run a job of a sweep that has several processes in a process group of its own, from its composed config, and wait for
    it; True where that was done. In one process after another, jobs would share Lightning's process group and environment."""
    if HydraConfig.get().mode != RunMode.MULTIRUN or started_outside() or not several_devices(cfg):
        return False
    with tempfile.TemporaryDirectory(prefix="uar-job-") as place:  # readable by this user alone
        plain = literal(OmegaConf.to_container(cfg, resolve=True))
        Path(place, "job.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain)), encoding="utf-8")
        where = [f"--config-path={place}", "--config-name=job", f"hydra.run.dir={quoted(str(folder))}"]
        quiet = ["hydra.output_subdir=null", "hydra.job.name=uar"]
        command = [*_this_command(), *where, *quiet, *named(config_folders())]
        given = typed()
        status = _wait(command, {JOB: json.dumps(vars(given))} if given else {})
    if status:
        raise UserError(f"the job in {folder} ended with status {status}; what it said is above")
    return True


def _this_command() -> list[str]:
    """What started this process, without its arguments."""
    module = sys.modules["__main__"].__spec__
    return [sys.executable, *(["-m", module.name] if module else [os.path.abspath(sys.argv[0])])]


def _wait(command: list[str], environment: Mapping[str, str]) -> int:
    """`environment`: what it has besides that of this process."""
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, **environment})
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # this process is being stopped
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
