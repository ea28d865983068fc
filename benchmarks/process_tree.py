"""What a command costs with all processes that it starts: seconds, CPU seconds, and memory at its highest."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memory import anonymous, resident

BETWEEN = 0.1  # seconds between two looks


@dataclass(frozen=True)
class Cost:
    """`largest`: bytes that one process held at most; `anonymous`: those of no file, by looks at it now and then; `together`:
    the most that all held at once, pages that they share counted for each."""

    wall: float
    cpu: float
    largest: int
    anonymous: int
    together: int


def run_measured(command: Sequence[str], folder: Path, log: Path) -> Cost:
    """Run a command in `folder`, what it says in `log`; RuntimeError where it fails."""
    start = time.perf_counter()
    cpu: dict[int, float] = {}
    together = largest = own = 0
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            tree = _tree(process.pid)
            cpu |= tree
            peaks = {pid: resident(True, pid) for pid in tree}
            together = max(together, sum(resident(False, pid) for pid in peaks))
            largest = max(largest, *peaks.values(), 0)
            own = max(own, *map(anonymous, peaks), 0)
            time.sleep(BETWEEN)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {process.returncode}; what it said is in {log}")
    return Cost(time.perf_counter() - start, sum(cpu.values()), largest, own, together)


def _tree(root: int) -> dict[int, float]:
    """A process and all below it, and the CPU seconds of each."""
    parents: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            stat = Path("/proc", name, "stat").read_text()
        except OSError:  # gone since it was listed
            continue
        cells = stat.rpartition(")")[2].split()
        parents.setdefault(int(cells[1]), []).append(int(name))
        seconds[int(name)] = (int(cells[11]) + int(cells[12])) / os.sysconf("SC_CLK_TCK")
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return {pid: seconds.get(pid, 0.0) for pid in found}
