"""How the threads of a process wait for each other between two parallel loops: awake for a moment, or asleep.

OpenMP's threads stay awake for milliseconds by default, and hold cores that another process could use: two processes on two
cores were up to five times slower than one after the other. libgomp reads its settings from the environment when torch is
loaded, so the functions here are called before that. They change nothing where the user has a setting.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # the settings that OpenMP libraries know
AWAKE = {"GOMP_SPINCOUNT": "10000"}  # rounds of an empty loop before a thread sleeps; libgomp's own are 300,000
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
MARK = "UAR_WAITING"  # what a process set, so that its children do not take it for the user's


def wait_settings(side_by_side: bool = False) -> dict[str, str]:
    """The environment of a process. `side_by_side`: whether further processes of the same run share its cores; a process that
    such a run started has that from its parent."""
    known = {name: os.environ[name] for name in NAMES if name in os.environ}
    ours = os.environ.get(MARK) == _text(known)
    if known and not ours:
        return known
    chosen = ASLEEP if side_by_side or known == ASLEEP else AWAKE
    return {**chosen, MARK: _text(chosen)}


def set_waiting(side_by_side: bool = False) -> None:
    """For this process, where torch is not loaded yet, and for those that it starts."""
    os.environ.update(wait_settings(side_by_side))


@contextmanager
def children_side_by_side() -> Iterator[None]:
    """For processes that are started while the block runs."""
    names = (*NAMES, MARK)
    before = {name: os.environ[name] for name in names if name in os.environ}
    set_waiting(side_by_side=True)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _text(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())
