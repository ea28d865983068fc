"""What a review keeps, in one SQLite file: the queue, every label as it was given, and who is done with what."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uar.errors import UserError

NO_FACTS: Mapping[str, str] = {}
PATIENCE = 5_000  # ms that a write waits for another process
TABLES = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists items (item integer primary key, query_id text not null unique, shared integer not null);
create table if not exists passages (
    item integer not null, place integer not null, doc_id text not null, texts text not null, label integer, grade integer,
    primary key (item, place)) without rowid;
create table if not exists labels (
    id text not null unique, item integer not null, place integer not null, who text not null, grade integer, confidence real,
    seconds real, time real not null, shown integer not null, start integer, end integer, guideline text not null);
create index if not exists by_person on labels (item, place, who);
create table if not exists turns (
    item integer not null, who text not null, state text not null, time real not null, primary key (item, who)) without rowid;
create index if not exists by_name on turns (who, state);
"""
CURRENT = """select labels.* from labels join (select max(rowid) as last from labels group by item, place, who)
    on labels.rowid = last where grade is not null"""


@dataclass(frozen=True)
class Item:
    """A question with its passages in the order shown. `suggestions`: the LLM's (label, grade) by passage id; grade None where
    its scale is another. `shared`: everyone judges it, for agreement. `texts`: hash of question and passage, by passage id."""

    query_id: str
    doc_ids: Sequence[str]
    texts: Mapping[str, str]
    suggestions: Mapping[str, tuple[int, int | None]]
    shared: bool


class StorageFault(UserError):
    """The database cannot be written now; the same write may succeed later."""


class LabelDatabase:
    """One connection, used by one thread at a time. What `change` wrote is on the disk when it ends."""

    def __init__(self, path: Path, patience: int = PATIENCE) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        with self._told():
            self._open = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._open.row_factory = sqlite3.Row
            self._open.execute(f"pragma busy_timeout = {patience:d}")
            self._open.execute("pragma journal_mode = wal")
            self._open.execute("pragma synchronous = full")
            self._open.executescript(TABLES)

    def close(self) -> None:
        self._open.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """One transaction: all that is written in the block, or nothing of it."""
        with self._lock, self._told():
            self._open.execute("begin immediate")
            try:
                yield
                self._open.execute("commit")
            except BaseException:
                if self._open.in_transaction:
                    self._open.execute("rollback")
                raise

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, self._told():
            return self._open.execute(query, values).fetchall()

    def look(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """As `rows`, over a connection of its own: a long query, during which labels are saved."""
        with self._told(), contextlib.closing(sqlite3.connect(self.path)) as aside:
            aside.row_factory = sqlite3.Row
            return aside.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        found = self.rows(query, *values)
        return found[0] if found else None

    def count(self, query: str, *values: Any) -> int:
        return int(self.rows(query, *values)[0][0])

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> int:
        """Within `change`; returns how many rows were changed."""
        return self._open.executemany(statement, rows).rowcount

    def fact(self, name: str) -> str | None:
        found = self.row("select value from facts where name = ?", name)
        return None if found is None else str(found["value"])

    def add(self, items: Sequence[Item], facts: Mapping[str, str] = NO_FACTS) -> None:
        """Put items at the end of the queue, and set facts."""
        with self.change():
            first = self.count("select count(*) from items")
            numbered = list(enumerate(items, start=first))
            self.write("insert into items values (?, ?, ?)", ((n, i.query_id, i.shared) for n, i in numbered))
            passages = (
                (n, place, d, i.texts[d], *i.suggestions.get(d, (None, None)))
                for n, i in numbered
                for place, d in enumerate(i.doc_ids)
            )
            self.write("insert into passages values (?, ?, ?, ?, ?, ?)", passages)
            self.write("insert or replace into facts values (?, ?)", facts.items())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            what = str(error)
            if "locked" in what or "busy" in what:
                advice = "another program holds it; close that, and it goes on"
            elif "full" in what or "disk I/O" in what:
                advice = "free some space, and it goes on"
            elif "readonly" in what or "unable to open" in what:
                advice = "give a folder that can be written"
            else:
                raise
            raise StorageFault(f"{self.path}: {what}; {advice}") from error
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise
            raise UserError(f"{self.path}: {error}; give another out=; the judgements.parquet beside it is kept") from error
