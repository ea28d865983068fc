"""Pools of a run of several processes: process 0 makes and writes them, the others read what it wrote."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uar.collections import Collection
from uar.collections.checked_files import checked_candidates
from uar.errors import UserError
from uar.pools import write_pools
from uar.pools.stored_pools import ShownIds, pools_of
from uar.storage.files import digest, write_text

LONGEST = 6 * 3600.0  # seconds that a process waits for process 0
BETWEEN = 0.2  # seconds between two looks
LAUNCH = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")


class SharedPools:
    """`make` gives the pools of some queries, each query's independent of the others asked for; `path` keeps those of all that
    were asked for, {query_id, candidates} a line, with `key` beside it, a hash of what they are made from. `resume`: process 0
    reads what an earlier part of the run wrote, where the key is the same.

    Lightning starts the other processes when a fit begins, torchrun and SLURM start them at once: then they look for the file
    again and again, in no collective that would time out.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        collection: Collection,
        make: Callable[[Sequence[str]], Mapping[str, Sequence[str]]],
        resume: bool = False,
    ) -> None:
        self._path, self._mark, self._key = path, path.with_suffix(".key"), key
        self._collection, self._make, self._resume = collection, make, resume
        self._found = ShownIds(collection, pools_of(collection, {}))
        self._seen: tuple[int, int] | None = None

    @property
    def asked(self) -> bool:
        """Whether the pool of a query was asked for."""
        return len(self._found) > 0

    def __call__(self, query_ids: Sequence[str]) -> Mapping[str, list[str]]:
        query_ids = list(dict.fromkeys(query_ids))
        missing = [q for q in query_ids if q not in self._found]
        if missing and rank_zero_only.rank > 0:
            self._wait(missing)
        elif missing and not (self._resume and self._read(missing)):
            made = pools_of(self._collection, self._make(missing))
            self._found = ShownIds(self._collection, self._found.table.joined(made))
            write_pools(self._path, self._found)
            write_text(self._mark, self._key)
        return ShownIds(self._collection, self._found.table.chosen(query_ids))

    def _wait(self, query_ids: Sequence[str]) -> None:
        start = time.monotonic()
        while not self._read(query_ids):
            if time.monotonic() - start > LONGEST:
                raise UserError(
                    f"{self._path}: process 0 did not write the pools within {LONGEST / 3600:.0f} hours; see what it says, "
                    "and whether the processes share the run folder"
                )
            time.sleep(BETWEEN)

    def _read(self, query_ids: Sequence[str]) -> bool:
        """Whether the file, of the same key, holds the queries; it is read anew only when it was written anew."""
        try:
            stat = self._path.stat()
            written = stat.st_ino, stat.st_mtime_ns
            if self._mark.read_text(encoding="utf-8") != self._key or written == self._seen:
                return False
            found = checked_candidates(self._path, self._collection.queries, self._collection.corpus)
        except FileNotFoundError:
            return False
        self._seen = written
        if not set(query_ids) <= set(found):
            return False
        self._found = ShownIds(self._collection, pools_of(self._collection, found))
        return True


def pools_key(settings: object, collection: Collection) -> str:
    """Of pools that `settings` make of a collection, and of the start of the processes: a file that `settings` name may have
    changed since an earlier one."""
    return digest(settings, collection.hash, collection.corpus.language, [os.environ.get(name) for name in LAUNCH])
