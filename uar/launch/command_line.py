"""The command line of the running job, as it can be typed again."""

import shlex

from uar.launch.config_folders import config_folders, named
from uar.storage.manifest import mask
from uar.tracking.typed import typed


def command_line() -> str | None:
    """With secrets masked; None where no command is running, but Python code."""
    given = typed()
    if given is None:
        return None
    return shlex.join(["python", "-m", f"uar.{given.config_name}", *named(config_folders()), *map(masked, given.overrides)])


def masked(override: str) -> str:
    """An override with its secrets masked."""
    option, equals, value = override.partition("=")
    last = option.lstrip("+~").rpartition(".")[2]
    return f"{option}{equals}{mask({last: value})[last]}"
