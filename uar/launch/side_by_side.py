"""Processes of one run that share a machine: those that its config asks for, and those that another program started."""

import os


def started_outside() -> bool:
    """Whether this process is one of several that torchrun, SLURM or Lightning started."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1
