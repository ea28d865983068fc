"""Seconds that measuring takes: `python benchmarks/metrics.py` (7,000 queries with 1,000 results each)."""

import argparse
import logging
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from uar.collections import Collection, Corpus, Query
from uar.evaluation.measures import means, per_query
from uar.storage.runs import Run, read_run, write_run

MEASURES = ("nDCG@10", "RR@10", "R@100", "AP")
log = logging.getLogger(__name__)


def generate(queries: int, depth: int, seed: int = 0) -> tuple[Collection, Run]:
    """Ten graded judgements a query, about half of them among its results; scores have many ties."""
    rng = random.Random(seed)
    names = [f"d{i}" for i in range(50 * depth)]
    run, qrels = {}, {}
    for q in range(queries):
        start = rng.randrange(len(names) - 2 * depth)
        results = names[start : start + depth]
        run[f"q{q}"] = [(d, round(20 - at / 100, 1)) for at, d in enumerate(results)]
        qrels[f"q{q}"] = {names[start + rng.randrange(2 * depth)]: rng.randrange(4) for _ in range(10)} | {results[5]: 2}
    questions = {q: Query(q, q) for q in run}
    return Collection("generated", "generated", cast(Corpus, None), questions, qrels, positive_grade=2), run


@contextmanager
def timed(what: str) -> Iterator[None]:
    start, computing = time.perf_counter(), time.process_time()
    yield
    passed, computed = time.perf_counter() - start, time.process_time() - computing
    log.info("%-8s %6.2f s (%.2f s of a core)", what, passed, computed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=7_000)
    parser.add_argument("--depth", type=int, default=1_000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    collection, run = generate(options.queries, options.depth)
    with timed("measure"):
        values = means(per_query(collection, run, MEASURES, collection.queries))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated.trec"
        with timed("write"):
            write_run(path, run, "generated")
        with timed("read"):
            read_run(path)
    log.info("%s", ", ".join(f"{m} {v:.4f}" for m, v in values.items()))


if __name__ == "__main__":
    main()
