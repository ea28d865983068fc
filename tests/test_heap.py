"""Freed memory goes back to the system."""

import sys
from pathlib import Path

import pytest

from uar.machine.heap import release_heap


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_is_freed_between_pieces_that_are_kept_is_given_back() -> None:
    pieces = [bytearray(b"1") * (100 << 10) for _ in range(2_000)]
    kept = [pieces.pop(place) for place in range(1_900, 0, -100)]
    full = resident()
    pieces.clear()
    release_heap()
    assert full - resident() > 150 << 20
    assert all(set(piece) == {ord("1")} for piece in kept)


def resident() -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
