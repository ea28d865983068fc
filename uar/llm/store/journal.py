"""Journals of an annotation store: what a writer keeps until its next part, a line a record, held by a file lock."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from uar.errors import DataError, UserError
from uar.llm.record import Record
from uar.llm.store.parts import table_of, write_part
from uar.storage.files import NO_LOCKS, named

log = logging.getLogger(__name__)


class Journal:
    """The journal of this process. `path.with_suffix(".parquet")` is the part that it becomes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._records: list[Record] = []
        self._by_key: defaultdict[str, list[Record]] = defaultdict(list)
        self._size = 0
        self.path, self._handle = _open_locked(folder)

    def __len__(self) -> int:
        return len(self._records)

    def of_key(self, key: str) -> Sequence[Record]:
        return self._by_key.get(key, ())

    def write(self, record: Record) -> None:
        line = left = (record.to_json() + "\n").encode("utf-8", "surrogatepass")
        with named(self.path):
            try:
                while left:
                    left = left[os.write(self._handle, left) :]
            except OSError:
                os.ftruncate(self._handle, self._size)  # half a line would spoil the next one
                raise
        self._size += len(line)
        self._records.append(record)
        self._by_key[record.key].append(record)

    def finish(self) -> None:
        """Become a part."""
        if self._records:
            write_part(self.path.with_suffix(".parquet"), table_of(self._records))
        self.path.unlink(missing_ok=True)
        os.close(self._handle)


def _open_locked(folder: Path) -> tuple[Path, int]:
    """A new journal, which gets the name that adopters look for once it is locked."""
    while True:
        name = f"{time.strftime('%Y%m%dT%H%M%S')}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        path = folder / f"{name}.jsonl"
        unseen = path.with_suffix(".opening")
        handle = os.open(unseen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            os.close(handle)
            unseen.unlink(missing_ok=True)
            if error.errno not in NO_LOCKS:
                raise
            raise UserError(
                f"store={folder}: its file system has no file locks ({error.strerror}), by which writers leave each other's "
                "files alone; put the store on another one, such as a local disk or NFS mounted with locks"
            ) from error
        try:
            os.rename(unseen, path)
        except FileNotFoundError:  # an adopter was there before the lock
            os.close(handle)
        else:
            return path, handle


def journals_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def read_journal(path: Path) -> Iterator[Record]:
    """Its records; none where it became a part since it was listed. DataError where it is no journal."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        try:
            record = Record.from_row(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            if line.endswith(b"\n"):
                raise DataError(path, "not a record of an annotation store; move the file away", number) from error
            return  # the half line of a writer that was killed, or is writing
        yield record


def adopt_journals(folder: Path) -> None:
    """Make parts of the journals whose writers are gone, and remove those that a writer was killed over before it began."""
    for path in [*journals_of(folder), *sorted(folder.glob("*.opening"))]:
        # it may become a part at any time, or be another user's; NFS locks what is open for writing alone
        with suppress(FileNotFoundError, PermissionError), path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                    continue  # its writer lives
                if error.errno in NO_LOCKS:
                    log.warning("%s stays as it is, since its file system has no locks (%s)", path, error.strerror)
                    continue
                raise
            if path.suffix == ".opening":
                path.unlink(missing_ok=True)
            elif path.exists():  # another process may have adopted it between the listing and the lock
                _adopt(path)


def adopt_new_journals(folder: Path, known: Collection[Path], seconds: float = 60.0) -> None:
    """Make parts of journals, those that are not `known` as soon as their writers are gone: killed processes take a moment to
    let go of them. Waits for `seconds` at most."""
    until = time.monotonic() + seconds
    adopt_journals(folder)
    while set(journals_of(folder)).difference(known) and time.monotonic() < until:
        time.sleep(0.05)
        adopt_journals(folder)


def _adopt(path: Path) -> None:
    records = list(read_journal(path))
    part = path.with_suffix(".parquet")
    for half in part.parent.glob(f".{part.name}.*"):  # of a writer that was killed over its part
        half.unlink()
    log.info("Keeping %d records that an interrupted run left in %s", len(records), path.name)
    if records:
        write_part(part, table_of(records))
    path.unlink()
