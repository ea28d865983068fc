"""What opening a large annotation store costs, and what looking up its records does.

    python benchmarks/store_startup.py [--records 1500000] [--lookups 100000]

Builds a store of UtilSel-like records (pools of 16, a third of the outputs 300 characters long) in a temporary folder and
measures a fresh process. RSS is the process's own, everything imported.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from memory import resident
from rich.console import Console
from rich.table import Table

from uar.llm.store.parts import SCHEMA, write_part
from uar.llm.store.store import PART, Store

STAGES = ("relsel", "pseudo_answer", "utilsel")
POOL = 16


def build(folder: Path, records: int) -> None:
    """Parts as an annotation run writes them, with keys of random digits."""
    rng = np.random.default_rng(0)
    words = np.array([f"{rng.integers(26**5):x}" for _ in range(5_000)])
    for start in range(0, records, PART):
        write_part(folder / f"{start:09}.parquet", _part(rng, words, start, min(PART, records - start)))


def _part(rng: np.random.Generator, words: np.ndarray, start: int, size: int) -> pa.Table:
    numbers = np.arange(start, start + size)
    stages = [STAGES[n % 3] for n in numbers]
    pools = rng.integers(8_841_823, size=(size // 3 + 2, POOL)).astype(str)
    selections = rng.integers(1, POOL + 1, size=(size, 4))
    texts = words[rng.integers(len(words), size=(size, 60))]
    columns = {
        "key": _keys(numbers),
        "collection": ["msmarco-passage.train"] * size,
        "query_id": [str(n // 3) for n in numbers],
        "doc_ids": [list(pools[n // 3 - start // 3]) for n in numbers],
        "stage": stages,
        "template": stages,
        "template_hash": [f"{STAGES.index(s):032x}" for s in stages],
        "layout": ["paper"] * size,
        "model": ["an-organisation/a-model-of-32B@0123456789abcdef"] * size,
        "engine": ["openai"] * size,
        "output": [
            " ".join(text)[:300] if stage == "pseudo_answer" else f"My selection:{[[int(n)] for n in selected]}"
            for stage, text, selected in zip(stages, texts, selections, strict=True)
        ],
        "outcome": ["ok"] * size,
        "tokens_in": rng.integers(500, 4_000, size),
        "tokens_out": rng.integers(1, 160, size),
        "tokens_cached": np.zeros(size, np.int32),
        "seconds": rng.random(size).round(6),
        "time": 1.7e9 + numbers * 0.01,
    }
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})


def _keys(numbers: np.ndarray) -> list[str]:
    """32 digits of each number, the same in any process."""
    spread = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return [f"{half:016x}{number:016x}" for half, number in zip(spread.tolist(), numbers.tolist(), strict=True)]


def measure(folder: Path, records: int, lookups: int) -> None:
    """Print one JSON line of (what, seconds, RSS in MiB) a step."""
    steps = [("imports", 0.0, resident() / 2**20)]
    start = time.perf_counter()
    store = Store(folder)
    steps.append(("start-up", time.perf_counter() - start, resident() / 2**20))
    rng = random.Random(0)
    first = rng.randrange(max(1, records - lookups))
    orders = {
        "in order": np.arange(first, first + lookups) % records,
        "in random order": np.array([rng.randrange(records) for _ in range(lookups)]),
        "in random order again": np.array([rng.randrange(records) for _ in range(lookups)]),
        "of keys that are not kept": np.arange(records, records + lookups),
    }
    for name, numbers in orders.items():
        keys = _keys(numbers)
        start = time.perf_counter()
        found = sum(bool(store.of_keys([key])[key]) for key in keys)
        steps.append((f"{lookups:,} lookups {name}", time.perf_counter() - start, resident() / 2**20))
        if found != (0 if "not kept" in name else lookups):
            raise RuntimeError(f"{found} of {lookups} keys {name} were found")
    sys.stdout.write(json.dumps(steps) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_500_000)
    parser.add_argument("--lookups", type=int, default=100_000)
    parser.add_argument("--measure", type=Path, help="measure this store in this process")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.records, options.lookups)
        return
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        build(Path(folder), options.records)
        size = sum(p.stat().st_size for p in Path(folder).iterdir())
        console.print(f"{options.records:,} records built in {time.perf_counter() - start:.0f} s, {size / 2**20:.0f} MiB")
        command = [sys.executable, __file__, "--measure", folder, "--records", str(options.records)]
        command += ["--lookups", str(options.lookups)]
        steps = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    table = Table("step", "seconds", "RSS, MiB")
    for name, seconds, rss in steps:
        table.add_row(name, f"{seconds:.2f}", f"{rss:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
