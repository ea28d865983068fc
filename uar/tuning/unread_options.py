"""Options of a command that are given and have no effect, since the task reads none of their group, or not them."""

import re
from collections.abc import Collection, Sequence

from omegaconf import DictConfig, OmegaConf

from uar.errors import UserError
from uar.launch.override_text import options_of

GROUPS = ("rag", "expand", "annotator", "candidates")  # that some tasks and rewards read, and others do not
READERS = ("task", "reward", "rewards")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def refuse_unread(cfg: DictConfig, overrides: Sequence[str], task: str, idle: Collection[str] = ()) -> None:
    """UserError for what was given of GROUPS and neither the task nor a reward refers to, and for what is `idle`, see `Task`.
    `overrides`: of the command line."""
    read = _read(cfg) | ({"candidates"} if cfg.task.depth else set())
    found = []
    for override, path in options_of(overrides):
        unread = path.partition(".")[0] in GROUPS and not any(_within(path, one) or _within(one, path) for one in read)
        if unread or path in idle:
            found.append(override)
    if found:
        raise UserError(
            f"{', '.join(found)}: task={task} and its rewards do not read this; leave it out, or give another task"
        )


def _read(cfg: DictConfig) -> set[str]:
    """Paths of the config that READERS refer to, and what stands there refers to in turn."""
    found: set[str] = set()
    coming = list(READERS)
    while coming:
        node = OmegaConf.select(cfg, path := coming.pop(), throw_on_resolution_failure=False)
        raw = str(OmegaConf.to_container(node, resolve=False)) if OmegaConf.is_config(node) else ""
        new = set(REFERENCE.findall(raw)) - found
        found |= new
        coming += new - {path}
    return found


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.")
