"""Resident memory of processes, as Linux tells it."""

from pathlib import Path


def resident(peak: bool = False, pid: int | None = None) -> int:
    """Bytes now, or at most so far, of this process or of another; 0 of one that is gone."""
    return _read("VmHWM" if peak else "VmRSS", pid)


def anonymous(pid: int | None = None) -> int:
    """Bytes now that are of no file, which the system cannot take back."""
    return _read("RssAnon", pid)


def _read(name: str, pid: int | None) -> int:
    try:
        lines = Path("/proc", str(pid or "self"), "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
