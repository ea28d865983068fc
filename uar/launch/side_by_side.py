"""Processes of one run that share a machine: those that its config asks for, and those that another program started."""

import os

from omegaconf import DictConfig, OmegaConf

LAUNCHERS = (  # that run the jobs of a sweep beside each other on this machine
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
)


def started_outside() -> bool:
    """Whether this process is one of several that torchrun, SLURM or Lightning started."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def which_process() -> int:
    """Number of this process among those of its run, from 0."""
    numbers = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return int(next(filter(None, numbers), 0))


def several_devices(cfg: DictConfig) -> bool:
    """Whether a run has one process a device, and several devices; False for a command that trains nothing."""
    trainer = cfg.get("trainer", {})
    devices = trainer.get("devices", 1)
    several = len(devices) > 1 if OmegaConf.is_list(devices) else devices not in (1, "1")
    return several or trainer.get("num_nodes", 1) > 1


def jobs_side_by_side(hydra: DictConfig) -> bool:
    """Whether a sweep runs several jobs at once on this machine, by Hydra's own config."""
    return hydra.launcher._target_ in LAUNCHERS and hydra.launcher.get("n_jobs") != 1
