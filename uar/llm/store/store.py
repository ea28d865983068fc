"""The annotation store: append-only Parquet parts that many processes may write side by side.

A finished record goes at once into the writer's journal (`*.jsonl`, held by a file lock), so a kill loses only calls in
flight; every `PART` records, and at the end, the journal becomes a Parquet part, written beside and renamed. Journals that
a killed process left are turned into parts by the next writer. Memory holds a short index of all keys, the journal, and a
bounded number of decoded rows.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from uar.errors import DataError
from uar.launch.override_text import typed
from uar.llm.record import Outcome, Record
from uar.llm.store.journal import Journal, adopt_journals, journals_of, read_journal
from uar.llm.store.key_index import Index
from uar.llm.store.parts import parts_of
from uar.llm.store.record_selection import select_records, wanted_records
from uar.storage.files import digest

log = logging.getLogger(__name__)
PART, MANY = 4_096, 1_000  # records of a part; parts of a folder


class Store:
    """A folder of records. `also`: further folders that are read, never written (shipped annotations)."""

    def __init__(self, folder: Path, also: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._folders = [folder, *also]
        self._journal: Journal | None = None
        self._index = Index()
        self._indexed: set[Path] = set()
        adopt_journals(folder)
        for place in self._folders:  # journals of living writers before the parts that they may become meanwhile
            for journal in journals_of(place):
                self._index.add_records(list(read_journal(journal)))
        for part in self._new_parts():
            self._index.add_part(part)
        self._index.merge()
        _tell_of_parts(folder)

    def of_keys(self, keys: Iterable[str]) -> dict[str, list[Record]]:
        """All that is kept under some keys, by key."""
        found = self._index.find(list(dict.fromkeys(keys)))
        return found if self._journal is None else {key: [*self._journal.of_key(key), *own] for key, own in found.items()}

    def append(self, record: Record) -> None:
        """Keep a record; on return it survives a kill of this process. OSError where the disk is full."""
        if self._journal is None:
            self._journal = Journal(self.folder)
        record = replace(record, output=record.output.encode("utf-8", "replace").decode())  # half characters fit no file
        self._journal.write(record)
        if len(self._journal) >= PART:
            self.close()

    def close(self) -> None:
        """Turn the journal into a part. The store may be appended to again."""
        if self._journal is None:
            return
        self._journal.finish()
        self._journal = None
        for part in self._new_parts():  # this one, and those of other writers
            try:
                self._index.add_part(part)
            except DataError as error:  # the next start tells it; what is kept here stays kept
                log.warning("%s", error)

    def records(self, collection: str, stages: Iterable[str], model: str) -> Iterator[Record]:
        """Records of one collection, some stages and one model, each once, oldest first; a later one replaces an error, and a
        good one any failure."""
        return select_records(self._folders, wanted_records(collection, model, stages))

    def _new_parts(self) -> Iterator[Path]:
        for folder in self._folders:
            for part in parts_of(folder):
                if part not in self._indexed:
                    self._indexed.add(part)
                    yield part


@cache
def _tell_of_parts(folder: Path) -> None:
    """Once in a run, which opens its store again and again."""
    parts = len(parts_of(folder))
    if parts > MANY:
        advice = typed("store", {"store": str(folder), "action": "compact"})
        log.info("%s has %s parts, each of which is opened at a start; few in place of them: %s", folder, f"{parts:,}", advice)


def best(records: Iterable[Record], read: Callable[[Record], str]) -> Record | None:
    """Of the good replies the newest, else the newest failure. `read`: what a record is taken for."""
    kept = sorted(records, key=lambda r: r.time)
    good = [record for record in kept if read(record) == Outcome.OK]
    if good:  # of copies for several queries the first, which has the cost
        return next(record for record in good if record.output == good[-1].output)
    return kept[-1] if kept else None


def state_of(folders: Sequence[Path]) -> str:
    """Changes whenever a record is kept in one of the folders."""
    files = [path for folder in folders for path in (*parts_of(folder), *journals_of(folder))]
    sizes = []
    for path in files:
        with suppress(FileNotFoundError):  # a journal that became a part meanwhile
            sizes.append((path.name, path.stat().st_size))
    return digest(sizes)
