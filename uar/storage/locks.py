"""Locks of files, which a process loses when it ends in whatever way. They hold on NFS too, which locks only what is open for
writing, and are of files of their own, which stay."""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uar.storage.files import NO_LOCKS, digest, is_whole, writable

log = logging.getLogger(__name__)


def lock(held: int, how: int) -> None:
    """Of a descriptor. BlockingIOError where `how` does not wait and another process holds it; on a file system without locks
    every process is taken to be alone."""
    try:
        fcntl.flock(held, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


@contextmanager
def alone(path: Path, doing: str | None = None) -> Iterator[None]:
    """Hold the lock of the file `path`, which is made, while the block runs; other processes wait for it. `doing`: what takes
    long, which the log of one that waits says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if doing:
                log.info("Waiting for another process, which is %s in %s", doing, path.parent)
            lock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def built_once(folder: Path, build: Callable[[], object]) -> Path:
    """The folder of the cache, CACHE/KIND/KEY, which `build` writes with `whole_dir` where it is not whole. Of several
    processes one builds and the others wait."""
    if not is_whole(folder):
        place = folder.parent.parent / "locks" / digest(str(folder))
        with writable(place), alone(place):
            if not is_whole(folder):
                build()
    return folder
