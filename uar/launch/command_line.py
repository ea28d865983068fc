"""The command line of the running job, as it can be typed again."""

import shlex

from hydra.core.hydra_config import HydraConfig

from uar.storage.manifest import mask


def command_line() -> str | None:
    """With secrets masked; None where no command is running, but Python code."""
    if not HydraConfig.initialized():
        return None
    command = ["python", "-m", f"uar.{HydraConfig.get().job.config_name}"]
    return shlex.join([*command, *map(masked, HydraConfig.get().overrides.task)])


def masked(override: str) -> str:
    """An override with its secrets masked."""
    option, equals, value = override.partition("=")
    last = option.lstrip("+~").rpartition(".")[2]
    return f"{option}{equals}{mask({last: value})[last]}"
