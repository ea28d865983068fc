"""The folders in which the configs of a command lie."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from uar.launch.override_text import SEARCHPATH, quoted
from uar.launch.resolvers import CONF


def config_folders() -> list[Path]:
    """Those that the command line adds (--config-dir, hydra.searchpath), and then `conf`."""
    return folders_in(HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else [])


def folders_in(sources: Iterable[Any]) -> list[Path]:
    """As `config_folders`, of the sources that Hydra's config has of a command."""
    own = [Path(source.path) for source in sources if source.schema == "file"]
    return [*dict.fromkeys(folder for folder in own if folder != CONF), CONF]


def named(folders: Sequence[Path]) -> list[str]:
    """What names one's own among these folders on a command line; nothing where there are none."""
    own = ",".join(quoted(f"file://{folder.absolute()}") for folder in folders if folder != CONF)
    return [f"{SEARCHPATH}=[{own}]"] if own else []
