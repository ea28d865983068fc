"""The kinds of retriever that are trained: those that files of the config group `retriever` name."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from uar.launch.config_folders import config_folders
from uar.launch.located import located
from uar.retrievers.trainable import Trainable


def kinds(folders: Sequence[Path] | None = None) -> dict[str, type[Trainable]]:
    """By the name of the first file that builds it. `folders`: of configs; None, those of the command. Those that the command
    line adds come first, so that a kind which reads what another one reads too is asked before it."""
    found: dict[str, type[Trainable]] = {}
    for folder in config_folders() if folders is None else folders:
        for path in sorted((folder / "retriever").glob("*.yaml")):
            target = OmegaConf.select(OmegaConf.load(path), "_target_")
            made = located(target, str(path)) if target else None
            if isinstance(made, type) and issubclass(made, Trainable) and made not in found.values():
                found.setdefault(path.stem, made)
    return found


def kind_that_reads(path: str, revision: str | None) -> tuple[str, type[Trainable]] | None:
    """The kind, and its name as above, that the files of a model say they are of; None where they say none."""
    return next(((name, kind) for name, kind in kinds().items() if kind.reads(path, revision)), None)
