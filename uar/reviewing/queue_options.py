"""The options that a queue was made by, so that another command is told from the same one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uar.launch.override_text import written

PLACES = ("run", "path", "judgements", "answers")  # options that name a file or a folder
Flat = dict[str, Any]


def kept_options(options: Mapping[str, Any], folder: Path) -> Flat:
    """Options by dotted name, as they are kept with the review in `folder`: files and folders as seen from there, however
    they were typed."""
    return {name: _from(folder, value) if _is_place(name, value) else value for name, value in _flat(options).items()}


def differing(kept: Mapping[str, Any], options: Mapping[str, Any], folder: Path) -> list[str]:
    """`NAME=NOW (then THEN)` of those that are others than the `kept` ones, among which a path may stand as it was typed.
    What only one of the two has is of another version."""
    typed, now, then = _flat(options), kept_options(options, folder), _flat(kept)
    both = [name for name in then if name in now and then[name] not in (now[name], typed[name])]
    return [f"{name}={written(typed[name])} (then {written(then[name])})" for name in both]


def _flat(options: Mapping[str, Any], above: str = "") -> Flat:
    found: Flat = {}
    for name, value in options.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) and value else {f"{above}{name}": value}
    return found


def _is_place(name: str, value: Any) -> bool:
    return isinstance(value, str) and name.rpartition(".")[2] in PLACES


def _from(folder: Path, path: str) -> str:
    return os.path.relpath(path, folder)
