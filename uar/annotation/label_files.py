"""Labels that stand in a file: TREC qrels, a BEIR-style TSV, Parquet, or the folder of an annotate run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uar.errors import DataError
from uar.storage.lines import read_lines

TEXT = (".tsv", ".qrels", ".txt", ".trec")
LARGEST = 2**31
VALUES = ("label", "grade", "score", "rank")


@dataclass(frozen=True, slots=True)
class FileLabel:
    """What a file says of one passage; None where it does not say. Qrels have grades alone; a label 0/1 with no grade
    beside it is the grade too. `rank`: from 1."""

    grade: int | None
    label: int | None = None
    score: float | None = None
    rank: int | None = None


Row = tuple[int, str, str, FileLabel]  # line or row from 1, query id, passage id


def read_labels(path: Path) -> dict[str, dict[str, FileLabel]]:
    """Labels by query id and passage id, in file order.

    A text file (.tsv, .qrels, .txt, .trec) holds `query 0 passage grade` (TREC; any white space) or `query passage grade`
    parted by tabs, with or without a header (BEIR). Parquet holds query_id, doc_id and at least one of label, grade, score
    and rank. A folder is read for its labels.parquet. Every fault is a DataError that names the file and the line, or the
    row (from 1) of a Parquet file.
    """
    if path.is_dir():
        folder, path = path, path / "labels.parquet"
        if not path.is_file():
            raise DataError(folder, "a folder without labels.parquet; give the folder of an annotate run, or a file of labels")
    if path.suffix not in (".parquet", *TEXT):
        raise DataError(path, f"unknown kind of file {path.suffix!r}; allowed: .parquet, {', '.join(TEXT)}, a run folder")
    labels: dict[str, dict[str, FileLabel]] = {}
    for number, query_id, doc_id, label in _read_parquet(path) if path.suffix == ".parquet" else _read_text(path):
        if not query_id.strip() or not doc_id.strip():
            raise DataError(path, f"empty query or passage id ({query_id!r}, {doc_id!r}); give both", number)
        of_query = labels.setdefault(query_id, {})
        if doc_id in of_query:
            raise DataError(path, f"passage {doc_id!r} of query {query_id!r} stands here again; keep one label a pair", number)
        of_query[doc_id] = label
    if not labels:
        raise DataError(path, "no labels; at least one is needed")
    return labels


def _read_text(path: Path) -> Iterator[Row]:
    columns = 0  # told by the first line: 3 for BEIR, 4 for TREC
    for number, line in read_lines(path):
        first = not columns
        if first:
            columns = 3 if line.count("\t") == 2 else 4
        cells = [cell.strip() for cell in (line.split("\t") if columns == 3 else line.split())]
        if len(cells) != columns:
            wanted = "query-id, corpus-id and score, parted by tabs" if columns == 3 else "query, 0, passage and grade (TREC)"
            either = ", or query-id, corpus-id and score, parted by tabs" if first else ""
            raise DataError(path, f"{len(cells)} columns; {wanted}{either}, are needed", number)
        if first and columns == 3 and cells[0].lower().replace("_", "-") in ("query-id", "qid"):
            continue
        try:
            grade = int(cells[-1])
        except ValueError as error:
            raise DataError(path, f"grade is {cells[-1]!r}; a whole number is needed", number) from error
        yield number, cells[0], cells[-2], FileLabel(_small(path, number, "grade", grade))


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(path, f"cannot be read as Parquet ({str(error).splitlines()[0]}); give a whole file") from error
    names = table.column_names
    given = [name for name in VALUES if name in names]
    if not {"query_id", "doc_id"} <= set(names) or not given:
        raise DataError(path, f"columns are {', '.join(names)}; query_id, doc_id and one of {', '.join(VALUES)} are needed")
    for name in ("query_id", "doc_id", *given):
        _check_type(path, name, table.schema.field(name).type)
    ids = [table.column(name).cast(pa.string()).to_pylist() for name in ("query_id", "doc_id")]
    values = [table.column(name).to_pylist() for name in given]
    for number, (query_id, doc_id, *row) in enumerate(zip(*ids, *values, strict=True), start=1):
        yield number, query_id or "", doc_id or "", _file_label(path, number, dict(zip(given, row, strict=True)))


def _check_type(path: Path, name: str, kind: Any) -> None:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if name in ("query_id", "doc_id"):
        wanted = "strings"
        fits = types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    else:
        wanted = {"score": "numbers", "label": "0 and 1"}.get(name, "whole numbers")
        fits = types.is_integer(kind) or types.is_null(kind)
        fits = fits or (name == "label" and types.is_boolean(kind)) or (name == "score" and types.is_floating(kind))
    if not fits:
        raise DataError(path, f"column {name!r} holds {kind}; {wanted} are needed")


def _file_label(path: Path, number: int, row: dict[str, Any]) -> FileLabel:
    label, grade, score, rank = (row.get(name) for name in VALUES)
    if label is grade is score is rank is None:
        raise DataError(path, f"no value under {', '.join(row)}; give at least one", number)
    if label not in (None, 0, 1):
        raise DataError(path, f"label is {label}; 0 or 1 is needed (grades go under 'grade')", number)
    if score is not None and not math.isfinite(score):
        raise DataError(path, f"score is {score}; a finite number or null is needed", number)
    for name, value in (("grade", grade), ("rank", rank)):
        _small(path, number, name, value or 0)
    if rank is not None and rank < 1:
        raise DataError(path, f"rank is {rank}; ranks count from 1", number)
    label = None if label is None else int(label)
    return FileLabel(
        grade=label if grade is None else grade,
        label=label,
        score=None if score is None else float(score),
        rank=rank,
    )


def _small(path: Path, number: int, name: str, value: int) -> int:
    if abs(value) >= LARGEST:
        raise DataError(path, f"{name} is {value}; a whole number below {LARGEST} is needed", number)
    return value
