"""The command line of the running job, as it can be typed again."""

import shlex

from hydra.core.hydra_config import HydraConfig

from uar.storage.manifest import mask


def command_line() -> str | None:
    """With secrets masked; None where no command is running, but Python code."""
    if not HydraConfig.initialized():
        return None
    command = ["python", "-m", f"uar.{HydraConfig.get().job.config_name}"]
    return shlex.join([*command, *map(_masked, HydraConfig.get().overrides.task)])


def _masked(override: str) -> str:
    option, equals, value = override.partition("=")
    last = option.lstrip("+~").rpartition(".")[2]
    return f"{option}{equals}{mask({last: value})[last]}"
