"""Resident memory of this process, as Linux tells it."""

from pathlib import Path


def resident(peak: bool = False) -> int:
    """Bytes now, or at most so far."""
    name = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
