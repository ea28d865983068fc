"""A run folder has one owner: the process that runs the job, with those that it starts."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from uar.errors import UserError
from uar.launch.command_line import masked
from uar.launch.side_by_side import which_process
from uar.storage.locks import lock

MARK = ".owner"  # in the folder; its owner holds a lock on it
OWNED = "UAR_OWNED_FOLDER"  # of the environment of the processes that an owner starts


@contextmanager
def owned(folder: Path, sweep: str | None = None, overrides: Sequence[str] = ()) -> Iterator[None]:
    """This process alone has the folder while the block runs. UserError where another one has it, or where another job of the
    same sweep had it, whose results would be lost.

    `sweep`: the name of the sweep, None for a single job. `overrides`: those of the job.
    """
    overrides = [masked(override) for override in overrides]  # the file outlives the run
    own = str(folder.resolve())
    if os.environ.get(OWNED) == own or which_process() > 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder / MARK, os.O_RDWR | os.O_CREAT, 0o666)
    before = os.environ.get(OWNED)
    try:
        known = _take(held, folder)
        if sweep is not None and known.get("sweep") == sweep and known["overrides"] != list(overrides):
            differing = sorted(set(known["overrides"]) ^ set(overrides))
            raise UserError(
                f"two jobs of this sweep have one folder, {folder}, whose name does not tell them apart "
                f"({', '.join(differing)}); give hydra.sweep.subdir= such a name"
            )
        about = {"process": os.getpid(), "host": socket.gethostname(), "command": sys.argv[0], "sweep": sweep}
        text = json.dumps({**about, "overrides": list(overrides)}).encode()
        os.ftruncate(held, 0)
        os.pwrite(held, text, 0)
        os.environ[OWNED] = own
        yield
    finally:
        os.environ.pop(OWNED, None)
        if before is not None:
            os.environ[OWNED] = before
        os.close(held)


def _take(held: int, folder: Path) -> dict:
    """What the last owner wrote. UserError where it still is the owner."""
    taken = False
    try:
        lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        taken = True
    try:
        known = json.loads(os.pread(held, os.fstat(held).st_size, 0) or b"{}")
    except json.JSONDecodeError:  # its owner was killed while it wrote
        known = {}
    if taken:
        who = f"process {known['process']} on {known['host']}" if "process" in known else "another process"
        raise UserError(f"{folder}: {who} is writing there; wait for it, or give another name=, out= or hydra.run.dir=")
    return known
