"""The annotation store: append-only Parquet parts that many processes may write side by side.

A finished record goes at once into the writer's journal (`*.jsonl`, held by a file lock), so a kill loses only calls in
flight; every `PART` records, and at the end, the journal becomes a Parquet part, written beside and renamed. Journals that
a killed process left are turned into parts by the next writer.
"""

import fcntl
import json
import logging
import os
import socket
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uar.annotation.record import Outcome, Record
from uar.errors import DataError
from uar.files import named, write_table

log = logging.getLogger(__name__)
PART = 4_096
SCHEMA = pa.schema(
    [(n, pa.string()) for n in ("key", "collection", "query_id")]
    + [("doc_ids", pa.list_(pa.string()))]
    + [(n, pa.string()) for n in ("stage", "template", "template_hash", "layout", "model", "engine", "output", "outcome")]
    + [(n, pa.int32()) for n in ("tokens_in", "tokens_out", "tokens_cached")]
    + [("seconds", pa.float64()), ("time", pa.float64())]
)


class Store:
    """A folder of records. `also`: further folders that are read, never written (shipped annotations)."""

    def __init__(self, folder: Path, also: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._folders = [folder, *also]
        self._journal: _Journal | None = None
        self._fresh: dict[str, Record] = {}
        self._identities: set[tuple] = set()
        self._loaded: set[tuple] = set()
        self._groups: OrderedDict[tuple[Path, int], list[dict]] = OrderedDict()
        self._parts: list[tuple[Path, int]] = []  # (part, row group)
        self._adopt_journals()
        self._index()

    def find(self, key: str) -> Record | None:
        """A kept record of this call that need not be asked again (`error` is asked again)."""
        if key in self._fresh:
            return self._fresh[key]
        half = np.uint64(int(key[:16], 16))
        at = int(np.searchsorted(self._keys, half))
        while at < len(self._keys) and self._keys[at] == half:
            for row in self._group(int(self._places[at])):
                if row["key"] == key and row["outcome"] != Outcome.ERROR:
                    return Record.from_row(row)
            at += 1
        return None

    def load(self, collection: str, stages: Iterable[str], model: str) -> list[Record]:
        """`records`, and hold them in memory, so that `find` need not read parts again and again in another order."""
        found = list(self.records(collection, stages, model))
        self._fresh.update((r.key, r) for r in found if r.outcome != Outcome.ERROR)
        self._identities.update(r.identity() for r in found)
        self._loaded.add((collection, *stages, model))
        return found

    def ensure_loaded(self, collection: str, stages: Iterable[str], model: str) -> None:
        """`load`, unless that was done."""
        if (collection, *stages, model) not in self._loaded:
            self.load(collection, stages, model)

    def holds(self, record: Record) -> bool:
        """Whether this very record, for this query, was loaded or appended."""
        return record.identity() in self._identities

    def append(self, record: Record) -> None:
        """Keep a record; on return it survives a kill of this process. OSError where the disk is full."""
        if self._journal is None:
            self._journal = _Journal(self.folder)
        record = replace(record, output=record.output.encode("utf-8", "replace").decode())  # half characters fit no file
        self._journal.write(record)
        self._identities.add(record.identity())
        if record.outcome != Outcome.ERROR:
            self._fresh[record.key] = record
        if len(self._journal.records) >= PART:
            self.close()

    def close(self) -> None:
        """Turn the journal into a part. The store may be appended to again."""
        if self._journal is not None:
            self._journal.finish()
            self._journal = None

    def records(self, collection: str, stages: Iterable[str], model: str) -> Iterator[Record]:
        """Records of one collection, some stages and one model, each once, oldest first."""
        wanted = (pc.field("collection") == collection) & pc.field("stage").isin(list(stages)) & (pc.field("model") == model)
        rows: list[Record] = []
        for folder in self._folders:
            for journal in sorted(folder.glob("*.jsonl")):  # before the parts, since one may become a part meanwhile
                rows.extend(
                    r for r in _read_journal(journal) if (r.collection, r.model) == (collection, model) and r.stage in stages
                )
            for part in _parts(folder):
                rows.extend(map(Record.from_row, _read(part, filters=wanted).to_pylist()))
        kept: dict[tuple, Record] = {}
        for record in sorted(rows, key=lambda r: r.time):
            before = kept.get(record.identity())
            if before is None or before.outcome == Outcome.ERROR:
                kept[record.identity()] = record
        yield from sorted(kept.values(), key=lambda r: r.time)

    def _index(self) -> None:
        """Sorted first halves of all keys, each with its row group: 12 bytes a record."""
        keys, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        for folder in self._folders:
            for part in _parts(folder):
                for group, column in enumerate(_key_columns(part)):
                    halves = np.frombuffer(bytes.fromhex("".join(column)), dtype=">u8")[::2].astype(np.uint64)
                    keys.append(halves)
                    places.append(np.full(len(halves), len(self._parts), np.int32))
                    self._parts.append((part, group))
        joined = np.concatenate(keys)
        order = np.argsort(joined, kind="stable")
        self._keys, self._places = joined[order], np.concatenate(places)[order]

    def _group(self, place: int) -> list[dict]:
        if (wanted := self._parts[place]) not in self._groups:
            part, group = wanted
            self._groups[wanted] = pq.ParquetFile(part).read_row_group(group).to_pylist()
            if len(self._groups) > 8:
                self._groups.popitem(last=False)
        return self._groups[wanted]

    def _adopt_journals(self) -> None:
        """Make parts of the journals whose writers are gone."""
        for path in sorted(self.folder.glob("*.jsonl")):
            with suppress(FileNotFoundError), path.open("rb") as file:  # it may become a part at any time
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # its writer lives
                if path.exists():  # another process may have adopted it between the listing and the lock
                    records = list(_read_journal(path))
                    log.info("Keeping %d records that an interrupted run left in %s", len(records), path.name)
                    if records:
                        _write_part(path.with_suffix(".parquet"), records)
                    path.unlink()


class _Journal:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y%m%dT%H%M%S')}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.path = folder / f"{name}.jsonl"
        self.records: list[Record] = []
        unseen = self.path.with_suffix(".opening")  # it gets the name that adopters look for once it is locked
        self._handle = os.open(unseen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        os.rename(unseen, self.path)

    def write(self, record: Record) -> None:
        line = (record.to_json() + "\n").encode("utf-8", "surrogatepass")
        with named(self.path):
            while line:
                line = line[os.write(self._handle, line) :]
        self.records.append(record)

    def finish(self) -> None:
        if self.records:
            _write_part(self.path.with_suffix(".parquet"), self.records)
        self.path.unlink()
        os.close(self._handle)


def _parts(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.parquet") if not p.name.startswith("."))


@contextmanager
def _naming(part: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise DataError(part, f"not a part of an annotation store ({str(error).splitlines()[0]}); move it away") from error


def _key_columns(part: Path) -> list[list[str]]:
    """Keys of each row group."""
    with _naming(part):
        file = pq.ParquetFile(part)
        if not file.schema_arrow.equals(SCHEMA):
            raise ValueError("other columns")
        return [file.read_row_group(g, columns=["key"])["key"].to_pylist() for g in range(file.num_row_groups)]


def _read(part: Path, filters: pc.Expression) -> pa.Table:
    with _naming(part):
        return pq.read_table(part, schema=SCHEMA, filters=filters)


def _write_part(path: Path, records: Sequence[Record]) -> None:
    columns = {name: [getattr(r, name) for r in records] for name in SCHEMA.names}
    columns["doc_ids"] = [list(ids) for ids in columns["doc_ids"]]
    write_table(path, pa.table(columns, schema=SCHEMA), compression="zstd")


def _read_journal(path: Path) -> Iterator[Record]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:  # became a part since it was listed
        return
    for line in text.splitlines():
        try:
            yield Record.from_row(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError):
            return  # the half line of a killed writer; nothing whole follows it
