"""Runs: a ranking of passages a query, in TREC files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from uar.errors import DataError, UserError
from uar.storage.candidate_files import read_candidates
from uar.storage.files import whole_file
from uar.storage.lines import contradiction, log_repeats, read_lines, refuse_spaces
from uar.storage.ordering import Hit, best_first

Run = Mapping[str, Sequence[Hit]]  # query id -> hits, best first
COLUMNS = "query Q0 passage rank score tag"


def write_run(path: Path, run: Run, tag: str) -> None:
    """A TREC run. Scores are floats of single precision, as trec_eval holds them; those that tie are written apart by the
    smallest step, so that any reader keeps the order, whatever it does with ties. UserError for an id with white space and
    for a score that is no number."""
    with whole_file(path) as beside, beside.open("w", encoding="utf-8") as file:
        for query_id, hits in run.items():
            given = [score for _, score in hits]
            if any(map(math.isnan, given)):
                raise UserError(
                    f"{path}: a score of query {query_id!r} is no number; what gave it, such as a model, is broken"
                )
            scores = _apart(given).tolist()
            refuse_spaces(path, [query_id, *(d for d, _ in hits)])
            file.writelines(
                f"{query_id} Q0 {doc_id} {rank} {score:.9g} {tag}\n"
                for rank, ((doc_id, _), score) in enumerate(zip(hits, scores, strict=True), start=1)
            )


def _apart(scores: Sequence[float]) -> np.ndarray:
    """Falling scores as strictly falling floats of single precision, each at most as high as given."""
    widest = np.finfo(np.float32).max
    floats = np.clip(np.array(scores, dtype=np.float64), -widest / 2, widest).astype(np.float32) + np.float32(0)  # no -0
    bits = floats.view(np.int32).astype(np.int64)
    steps = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # neighbouring floats are neighbouring numbers
    places = np.arange(len(steps))
    steps = np.minimum.accumulate(steps + places) - places
    bits = np.where(steps < 0, -steps | 0x80000000, steps)
    return bits.astype(np.uint32).view(np.float32)


def read_run(path: Path) -> dict[str, list[Hit]]:
    """A TREC run (six columns), or a candidates file ({query_id, candidates} lines) whose order is the ranking. Ties of a
    TREC run fall by passage id, ascending (trec_eval: descending); its ranks are not looked at. Every fault is a DataError
    that names file and line."""
    if not path.is_file():
        raise DataError(path, "no such run; give a TREC run or a candidates file")
    return _read_candidates(path) if path.suffix == ".jsonl" else _read_trec(path)


def _read_candidates(path: Path) -> dict[str, list[Hit]]:
    return {
        row.query_id: [(d, float(len(row.doc_ids) - at)) for at, d in enumerate(row.doc_ids)] for row in read_candidates(path)
    }


def _read_trec(path: Path) -> dict[str, list[Hit]]:
    run: dict[str, dict[str, float]] = {}
    lines = 0
    for number, query_id, doc_id, score in _trec_lines(path):
        hits = run.setdefault(query_id, {})
        if hits.setdefault(doc_id, score) != score:
            first = next(n for n, q, d, _ in _trec_lines(path) if (q, d) == (query_id, doc_id))
            raise contradiction(path, f"passage {doc_id!r} of query {query_id!r}", first, number)
        lines += 1
    log_repeats(path, lines - sum(map(len, run.values())), "passages")
    return {query_id: best_first(hits.items()) for query_id, hits in run.items()}


def _trec_lines(path: Path) -> Iterator[tuple[int, str, str, float]]:
    """Line number, query id, passage id and score."""
    for number, line in read_lines(path):
        cells = line.split()
        if len(cells) != 6:
            raise DataError(path, f"{len(cells)} columns; a TREC run has six: {COLUMNS}", number)
        query_id, _, doc_id, _, given, _ = cells
        try:
            score = float(given)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(path, f"score {given!r}; a finite number is needed", number)
        yield number, query_id, doc_id, score


def cut_at(run: Run) -> int | None:
    """Results a query at which the lists of a run were cut: the length of the longest, where at least half of the lists have
    it. None where they differ more, as those of a search that found no further passages do."""
    lengths = [len(hits) for hits in run.values()]
    longest = max(lengths, default=0)
    return longest if lengths and 2 * lengths.count(longest) >= len(lengths) else None


def run_files(runs: Mapping[str, str] | Sequence[str] | str | None, option: str) -> dict[str, Path]:
    """Run files by name. Files of a list are named by their stems, or by their paths where stems are the same. `option` is
    how errors name them."""
    if not runs:
        raise UserError(f"{option} names no run; give files, such as '{option}=[A.trec,B.trec]' or '{option}={{a: A.trec}}'")
    if isinstance(runs, Mapping):
        return {str(name): Path(path) for name, path in runs.items()}
    given = [runs] if isinstance(runs, str) else list(runs)
    paths = [Path(path) for path in given]
    for names in ([p.stem for p in paths], [str(p) for p in paths]):
        if len(set(names)) == len(paths):
            return dict(zip(names, paths, strict=True))
    twice = next(path for path in given if given.count(path) > 1)
    raise UserError(f"{option} names {twice} more than once; name each file once")
