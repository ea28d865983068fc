"""The options of one command as it is composed: each with its value and its meaning, and the choices of its groups."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from uar.launch.config_folders import folders_in
from uar.launch.config_reference import config_files, files_with, meaning_of
from uar.launch.resolvers import CONF

SCRIPT = re.compile(r"python (\w+)\.py ")


@dataclass(frozen=True)
class Shown:
    """`name`: dotted. `value`: as the configs spell it, references to other options unresolved. `place`: the option, or the
    package of the group, that it belongs to; empty for those of no group."""

    name: str
    value: Any
    meaning: str
    place: str


@dataclass(frozen=True)
class Taken:
    """A composed command. `choices`: by group, or GROUP@PACKAGE, the name of the file taken, as Hydra's config has them;
    `folders`: of config files."""

    name: str
    cfg: DictConfig
    choices: Mapping[str, str]
    folders: Sequence[Path] = (CONF,)

    @property
    def packages(self) -> dict[str, tuple[str, str]]:
        """By the key under which the options of a choice stand: its group, with the package, and the file taken."""
        taken = reversed(list(self.choices.items()))  # Hydra has the last one first
        return {g.partition("@")[2] or g: (g, name) for g, name in taken if not g.startswith("hydra/")}


@contextmanager
def own_configs() -> Iterator[None]:
    """Configs are those of `conf/` while the block runs, also within a command, which was composed already: a process of a
    sweep's job was started on its composed one alone."""
    running = GlobalHydra.instance()
    before = running.hydra
    running.clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before  # Hydra has put another instance in its place meanwhile


def compose(config_name: str, overrides: Sequence[str]) -> Taken:
    with own_configs():
        whole = hydra.compose(config_name, list(overrides), return_hydra_config=True)
    own = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    return Taken(config_name, own, dict(whole.hydra.runtime.choices), folders_in(whole.hydra.runtime.config_sources))


def choices_of(group: str, folders: Sequence[Path] = (CONF,)) -> list[str]:
    """Names of the files of a group, in order; none where it is no group."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def groups_of(taken: Taken) -> dict[str, list[str]]:
    """Choices by group. Those that are added with a `+`, such as experiments, are of the command where its config has a key of
    their name; experiments where the first command at the head of their file is it, and all of one's own."""
    folders = taken.folders
    own = {group: names for group, _ in taken.packages.values() if (names := choices_of(group.split("@")[0], folders))}
    abouts = {(file.group, file.name): file.about for file in config_files()}
    for path in sorted(CONF.iterdir()):
        if path.is_dir() and path.name in taken.cfg and path.name not in taken.choices:
            names = choices_of(path.name, folders)
            if path.name == "experiment":
                known = {name: SCRIPT.findall(about)[:1] for (group, name), about in abouts.items() if group == path.name}
                names = [name for name in names if known.get(name, [taken.name]) == [taken.name]]
            own |= {f"+{path.name}": names} if names else {}
    return own


def options_of(taken: Taken) -> list[Shown]:
    """Those of no group first, then group by group."""
    taken_files = [(group.split("@")[0], name) for group, name in taken.packages.values()]
    files = files_with(taken.folders, taken_files)
    shown = []
    for name, value in _leaves(OmegaConf.to_container(taken.cfg, resolve=False)):
        package = max((p for p in taken.packages if name.startswith(f"{p}.")), key=len, default="")
        meaning = meaning_of(files, "", taken.name, name)
        if not meaning and package:
            group, choice = taken.packages[package]
            meaning = meaning_of(files, group.split("@")[0], choice, name.removeprefix(f"{package}."))
        top = package or (name.split(".")[0] if "." in name else "")
        shown.append(Shown(name, value, meaning, top))
    places = list(dict.fromkeys(["", *(option.place for option in shown)]))
    return sorted(shown, key=lambda option: places.index(option.place))


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, below in value.items():
        name = f"{prefix}{key}"
        if isinstance(below, dict) and below:
            yield from _leaves(below, f"{name}.")
        elif not str(key).startswith("_"):
            yield name, below
