"""Questions that were asked for calibration or a gate alone: an annotation has their replies, and nobody learns from them."""

from collections.abc import Callable, Collection, Set
from pathlib import Path

from uar.pools.stored_pools import PoolTable
from uar.storage.files import read_json, write_json

FILE = "besides.json"  # beside the pools
Entry = str | tuple[str, int]  # a query id, with the hash of the question where pools of several lots may be there


def besides_of(folder: Path, pools: PoolTable) -> frozenset[str]:
    """Those of some pools of a folder."""
    return frozenset(q for one in _entries(folder) if (q := _query_of(one, pools)) is not None)


def write_besides(folder: Path, besides: Collection[str]) -> None:
    """Those of the only run of a folder."""
    if besides or (folder / FILE).is_file():
        write_json(folder / FILE, sorted(besides))


def add_besides(folder: Path, asked: PoolTable, besides: Set[str], before: Callable[[PoolTable], Collection[str]]) -> None:
    """Those of a further run. `asked`: the pools of all its questions; `before`: which of some of these the runs before asked.
    A question that any run was about is none of them. Whoever writes is alone until the pools of the run are there too."""
    entries = _entries(folder)
    if besides or entries:
        known, now = besides_of(folder, asked), asked.chosen([q for q in asked if q in besides])
        wanted = (asked.keys() - besides) | (set(before(now)) - known)
        kept: list[Entry] = [one for one in entries if _query_of(one, asked) not in wanted]
        kept += [(q, now[q].question) for q in now if q not in wanted and q not in known]
        write_json(folder / FILE, sorted(kept, key=str))


def _entries(folder: Path) -> list[Entry]:
    path = folder / FILE
    entries = read_json(path) if path.is_file() else []
    return [one if isinstance(one, str) else (one[0], one[1]) for one in entries]


def _query_of(entry: Entry, pools: PoolTable) -> str | None:
    """The query id where the question is among the pools, as it is worded there."""
    if isinstance(entry, str):
        return entry if entry in pools else None
    query_id, question = entry
    return query_id if query_id in pools and pools[query_id].question == question else None
