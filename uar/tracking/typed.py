"""What the command line says of the running job."""

import json
import os
from dataclasses import dataclass

from hydra.core.hydra_config import HydraConfig

JOB = "UAR_JOB"  # of the environment of the processes that a job of a sweep has of its own: its `Typed`, as JSON


@dataclass(frozen=True)
class Typed:
    """`config_name`: of the command. `overrides`: of its options. `dirname`: these as names of folders have them."""

    config_name: str
    overrides: list[str]
    dirname: str


def typed() -> Typed | None:
    """Of a job of a sweep that has processes of its own, whose command line names its composed config alone, that of the
    sweep. None where no command is running, but Python code."""
    if JOB in os.environ:
        return Typed(**json.loads(os.environ[JOB]))
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    return Typed(str(hydra.job.config_name), list(hydra.overrides.task), str(hydra.job.override_dirname))
