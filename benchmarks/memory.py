"""Resident memory of processes, as Linux tells it."""

from pathlib import Path


def resident(peak: bool = False, pid: int | None = None) -> int:
    """Bytes now, or at most so far, of this process or of another; 0 of one that is gone."""
    name = "VmHWM" if peak else "VmRSS"
    try:
        lines = Path("/proc", str(pid or "self"), "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
