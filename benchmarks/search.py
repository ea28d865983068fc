"""Exact search over fp16 shards on disk, on a GPU where there is one, beside faiss' IndexFlatIP in memory on the CPU.

    python benchmarks/search.py [passages=1000000] [dim=384] [queries=1000] [k=100,1000] [rounds=2]

Vectors are drawn at random and normalised. Each search has a process of its own, with the same threads; the two take turns.
Memory is the peak of the process above what it had before vectors and queries were read. `overlap` is the share of the
first 100 that both find; the shards are fp16, the index fp32.
"""

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from command_line import called
from memory import resident
from rich.console import Console
from rich.table import Table

from uar.retrievers.shard_folder import SHARD


def build(folder: Path, passages: int, dim: int, queries: int) -> list[Path]:
    rng = np.random.default_rng(0)
    shards = []
    for number, start in enumerate(range(0, passages, SHARD)):
        vectors = rng.standard_normal((min(SHARD, passages - start), dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        shards.append(folder / f"shard-{number:05d}.npy")
        np.save(shards[-1], vectors.astype(np.float16))
    asked = rng.standard_normal((queries, dim), dtype=np.float32)
    np.save(folder / "queries.npy", asked / np.linalg.norm(asked, axis=1, keepdims=True))
    return shards


def measure(system: str, shards: list[Path], k: int) -> tuple[float, float, np.ndarray]:
    """Seconds, GiB and the first 100 rows a query."""
    import torch  # noqa: F401  before faiss

    from uar.machine.precision import device
    from uar.retrievers.exact_search import search

    import faiss  # isort: skip

    before = resident()
    queries = np.load(shards[0].parent / "queries.npy")
    if system == "uar":
        search(queries[:8], shards[:1], 8, device())  # warm
        start = time.perf_counter()
        _, rows = search(queries, shards, k, device())
    else:
        index = faiss.IndexFlatIP(queries.shape[1])
        for shard in shards:
            index.add(np.load(shard).astype(np.float32))
        index.search(queries[:8], 8)
        start = time.perf_counter()
        _, rows = index.search(queries, k)
    return time.perf_counter() - start, (resident(peak=True) - before) / 2**30, rows[:, :100]


def main(passages: int = 1_000_000, dim: int = 384, queries: int = 1_000, k: str = "100,1000", rounds: int = 2) -> None:
    table = Table("k", "uar s", "IndexFlatIP s", "speed", "uar GiB", "IndexFlatIP GiB", "memory", "overlap@100")
    with tempfile.TemporaryDirectory(prefix="uar-search-") as place:
        shards = build(Path(place), passages, dim, queries)
        for depth in map(int, str(k).split(",")):
            told: dict[str, list] = {"uar": [], "faiss": []}
            for _ in range(rounds):
                for system in told:
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                        told[system].append(pool.submit(measure, system, shards, depth).result())
            ours, theirs = (min(found, key=lambda x: x[0]) for found in told.values())
            pairs = zip(ours[2].tolist(), theirs[2].tolist(), strict=True)
            overlap = sum(len(set(a) & set(b)) for a, b in pairs) / theirs[2].size
            speed, memory = theirs[0] / ours[0], ours[1] / theirs[1]
            times = (f"{ours[0]:.2f}", f"{theirs[0]:.2f}", f"{speed:.2f} x")
            table.add_row(str(depth), *times, f"{ours[1]:.2f}", f"{theirs[1]:.2f}", f"{memory:.0%}", f"{overlap:.4%}")
    Console(width=120).print(table)


if __name__ == "__main__":
    called(main)
