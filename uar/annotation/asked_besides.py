"""Questions that were asked for calibration or a gate alone: an annotation has their replies, and nobody learns from them."""

from collections.abc import Callable, Collection, Set
from pathlib import Path

from uar.storage.files import read_json, write_json

FILE = "besides.json"  # beside the pools


def besides_of(folder: Path) -> frozenset[str]:
    """Those of the pools of a folder."""
    path = folder / FILE
    return frozenset(read_json(path)) if path.is_file() else frozenset()


def write_besides(folder: Path, besides: Collection[str]) -> None:
    """Those of the only run of a folder."""
    if besides or (folder / FILE).is_file():
        write_json(folder / FILE, sorted(besides))


def add_besides(folder: Path, asked: Set[str], besides: Set[str], before: Callable[[], Set[str]]) -> None:
    """Those of a further run. `asked`: all its questions; `before`: those of the runs before, whose pools are there. A
    question that any run was about is none of them. Whoever writes is alone until the pools of the run are there too."""
    known = besides_of(folder)
    if besides or known:
        wanted = (asked - besides) | (before() - known)
        write_json(folder / FILE, sorted((known | besides) - wanted))
