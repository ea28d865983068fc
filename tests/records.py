"""Records of tests, and a program that writes them."""

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import pyarrow.parquet as pq

from uar.llm.record import Generate, Outcome, Record
from uar.llm.store.store import Store, best

MODEL = "scripted@1"
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from uar.llm.store import store
from records import record
store.PART = {part}
writer = store.Store(Path({folder!r}))
for number in range({start}, {stop}):
    writer.append(record(number))
    print(number, flush=True)
writer.close()
"""


def record(number: int, **changes: object) -> Record:
    request = Generate((("user", f"question {number}"),), max_tokens=8)
    fields = {
        "key": request.key(MODEL),
        "collection": "mini.train",
        "query_id": f"q{number}",
        "doc_ids": ("d2", "d1"),
        "stage": "relsel",
        "template": "relsel",
        "template_hash": "0" * 32,
        "layout": "paper",
        "model": MODEL,
        "engine": "scripted",
        "output": "My selection:[[1]]\nżółć",
        "outcome": Outcome.OK,
        "tokens_in": 11,
        "time": float(number),
    }
    return Record(**(fields | changes))


def find(store: Store, key: str, read: Callable[[Record], str] = attrgetter("outcome")) -> Record | None:
    """What answers a key: of the good replies the newest, else the newest failure."""
    return best(store.of_keys([key])[key], read)


def everything(store: Store) -> list[Record]:
    return list(store.records("mini.train", ["relsel"], MODEL))


def rows(folder: Path) -> list[str]:
    """Query ids of all rows of all parts, repetitions included."""
    return [q for part in folder.glob("*.parquet") for q in pq.read_table(part)["query_id"].to_pylist()]
