"""Runs: a ranking of passages a query, in TREC files."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from uar.collections.lines import read_id, read_jsonl, read_lines
from uar.errors import DataError
from uar.files import whole_file
from uar.ranking import Hit, best_first

Run = Mapping[str, Sequence[Hit]]  # query id -> hits, best first


def write_run(path: Path, run: Run, tag: str) -> None:
    """A TREC run. Scores that tie are written apart by the smallest step, so that any reader keeps the order: score
    descending, then passage id."""
    with whole_file(path) as beside, beside.open("w", encoding="utf-8") as file:
        for query_id, hits in run.items():
            last = np.float32(np.inf)
            for rank, (doc_id, score) in enumerate(hits, start=1):
                value = np.float32(score)
                if not value < last:
                    value = np.nextafter(last, np.float32(-np.inf))
                last = value
                file.write(f"{query_id} Q0 {doc_id} {rank} {value:.9g} {tag}\n")


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """A TREC run (six columns), or a candidates file ({query_id, candidates} lines) whose order is the ranking."""
    if not path.is_file():
        raise DataError(path, "no such run; give a TREC run or a candidates file")
    run: dict[str, list[tuple[str, float]]] = {}
    if path.suffix == ".jsonl":
        for number, row in read_jsonl(path):
            ids = [str(d) for d in row.get("candidates") or []]
            run[read_id(path, number, row, "query_id")] = [(d, float(len(ids) - at)) for at, d in enumerate(ids)]
        return run
    for number, line in read_lines(path):
        cells = line.split()
        if len(cells) != 6:
            raise DataError(path, f"{len(cells)} columns; a TREC run has six: query Q0 passage rank score tag", number)
        try:
            score = float(cells[4])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(path, f"score {cells[4]!r}; a finite number is needed", number)
        hits = run.setdefault(cells[0], [])
        hits.append((cells[2], score))
    for query_id, hits in run.items():
        if len({d for d, _ in hits}) < len(hits):
            raise DataError(path, f"query {query_id!r} lists a passage twice; remove one of them")
    return {query_id: best_first(hits) for query_id, hits in run.items()}
