"""Files of labels: `labels.parquet` of an annotate or train run, another Parquet table, TREC qrels, a BEIR-style TSV."""

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uar.errors import DataError
from uar.storage.files import whole_file
from uar.storage.lines import contradiction, log_repeats, one_word
from uar.storage.qrels import read_qrels, small

log = logging.getLogger(__name__)
NAME = "labels.parquet"
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("label", pa.int8()),  # 1 positive, 0 negative
        ("grade", pa.int32()),
        ("score", pa.float64()),
        ("rank", pa.int32()),  # from 1
        ("uncertainty", pa.float64()),
        ("source", pa.string()),  # who said so: human, llm, llm:NAME, human+llm, …
        ("stage", pa.string()),  # of the training
        ("utility", pa.float32()),
        ("weight", pa.float32()),  # of the query, in the loss
    ]
)
ASSISTED = "assisted"  # further column of people's labels: true where they saw what an LLM says of the passage
IDS = ("query_id", "doc_id")
VALUES = ("label", "grade", "score", "rank")
TEXT = (".tsv", ".qrels", ".txt", ".trec")
BLOCK = 1 << 17  # rows


@dataclass(frozen=True, slots=True)
class FileLabel:
    """What a file says of one passage; None where it does not say. Qrels have grades alone; a label 0/1 with no grade
    beside it is the grade too. `rank`: from 1."""

    grade: int | None
    label: int | None = None
    score: float | None = None
    rank: int | None = None


Labels = dict[str, dict[str, FileLabel]]  # by query id and passage id


def write_label_file(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows of `columns` as a `labels.parquet`; the other columns of its schema are null. Written in blocks, since there may be
    millions."""
    rows = iter(rows)
    with whole_file(path) as beside, pq.ParquetWriter(beside, SCHEMA) as writer:
        while block := list(islice(rows, BLOCK)):
            given = dict(zip(columns, zip(*block, strict=True), strict=True))
            arrays = [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(len(block), f.type) for f in SCHEMA]
            writer.write_table(pa.table(arrays, schema=SCHEMA))


def write_label_blocks(path: Path, blocks: Iterable[Mapping[str, pa.Array | pa.ChunkedArray]]) -> None:
    """Columns of many rows at a time as a `labels.parquet`; the other columns of its schema are null."""
    with whole_file(path) as beside, pq.ParquetWriter(beside, SCHEMA) as writer:
        for given in blocks:
            size = len(given["query_id"])
            writer.write_table(pa.table([given.get(f.name, pa.nulls(size, f.type)) for f in SCHEMA], schema=SCHEMA))


def read_label_columns(path: Path, names: Sequence[str], query_ids: Collection[str] | None = None) -> pa.Table:
    """Columns of a run's `labels.parquet`, of some queries or of all; those that an older run did not write are null."""
    some = None if query_ids is None else [("query_id", "in", set(query_ids))]
    try:
        there = set(pq.read_schema(path).names)
        table = pq.read_table(path, columns=[n for n in names if n in there], filters=some)
    except (OSError, pa.ArrowException) as error:
        raise _no_parquet(path, error) from error
    if not {"query_id", "doc_id", "label"} <= there:
        raise DataError(path, f"columns are {', '.join(sorted(there))}; query_id, doc_id and label are needed")
    for name in names:
        if name not in there:
            table = table.append_column(name, pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table.select(list(names))


def read_labels(path: Path) -> Labels:
    """Labels in file order.

    A text file (.tsv, .qrels, .txt, .trec) is read as qrels; see `read_qrels`. Parquet holds query_id, doc_id and at least one
    of label, grade, score and rank. A folder is read for its labels.parquet. A train run's must hold one stage, and the log
    says which. A pair may stand there again with the same values, and the log says how many do. Every fault is a DataError
    that names the file and the line, or the row (from 1) of a Parquet file; so is a pair with other values than before.
    """
    if path.is_dir():
        folder, path = path, path / NAME
        if not path.is_file():
            raise DataError(folder, f"a folder without {NAME}; give the folder of a run, or a file of labels")
    if path.suffix not in (".parquet", *TEXT):
        raise DataError(path, f"unknown kind of file {path.suffix!r}; allowed: .parquet, {', '.join(TEXT)}, a run folder")
    if path.suffix == ".parquet":
        labels = _read_parquet(path)
    else:
        labels = {q: {d: FileLabel(grade) for d, grade in grades.items()} for q, grades in read_qrels(path).items()}
    if not labels:
        raise DataError(path, "no labels; at least one is needed")
    return labels


def _read_parquet(path: Path) -> Labels:
    labels: Labels = {}
    rows = 0
    for number, query_id, doc_id, label in _parquet_rows(path):
        rows += 1
        if labels.setdefault(query_id, {}).setdefault(doc_id, label) != label:
            first = next(n for n, q, d, _ in _parquet_rows(path) if (q, d) == (query_id, doc_id))
            raise contradiction(path, f"passage {doc_id!r} of query {query_id!r}", first, number)
    log_repeats(path, rows - sum(map(len, labels.values())), "labels")
    tell_assisted(path)
    return labels


def tell_assisted(path: Path) -> None:
    """Warn of labels by people who saw what an LLM says, where a Parquet file knows of any."""
    if ASSISTED in pq.read_schema(path).names:
        seen = sum(pq.read_table(path, columns=[ASSISTED])[ASSISTED].fill_null(False).to_pylist())
        if seen:
            line = "%s: %d labels by people were made while an LLM's suggestion was seen, and are not independent of it"
            log.warning(line, path, seen)


def _parquet_rows(path: Path) -> Iterator[tuple[int, str, str, FileLabel]]:
    """Row from 1, query id, passage id and what the row says."""
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise _no_parquet(path, error) from error
    with file:
        names = file.schema_arrow.names
        given = [name for name in VALUES if name in names]
        if not set(IDS) <= set(names) or not given:
            raise DataError(
                path, f"columns are {', '.join(names)}; query_id, doc_id and one of {', '.join(VALUES)} are needed"
            )
        for name in (*IDS, *given):
            _check_type(path, name, file.schema_arrow.field(name).type)
        if "stage" in names:
            _one_stage(path)
        rows = count(1)
        for batch in file.iter_batches(BLOCK, columns=[*IDS, *given]):
            ids = [batch.column(name).cast(pa.string()).to_pylist() for name in IDS]
            values = [batch.column(name).to_pylist() for name in given]
            for query_id, doc_id, *row in zip(*ids, *values, strict=True):
                number = next(rows)
                if not (query_id and doc_id and query_id.strip() and doc_id.strip()):
                    raise DataError(path, f"empty query or passage id ({query_id!r}, {doc_id!r}); give both", number)
                one_word(path, number, query_id)
                one_word(path, number, doc_id)
                yield number, query_id, doc_id, _file_label(path, number, dict(zip(given, row, strict=True)))


def _one_stage(path: Path) -> None:
    """The stages of a training may say different things of a passage, and none of them is the labels of the run."""
    stages = [stage for stage in pq.read_table(path, columns=["stage"])["stage"].unique().to_pylist() if stage is not None]
    if len(stages) > 1:
        raise DataError(
            path, f"labels of {len(stages)} stages ({', '.join(stages)}); give a file with the rows of one of them"
        )
    if stages:
        log.info("%s: labels of the training stage %s", path, stages[0])


def _no_parquet(path: Path, error: Exception) -> DataError:
    return DataError(path, f"cannot be read as Parquet ({str(error).splitlines()[0]}); give a whole file")


def _check_type(path: Path, name: str, kind: Any) -> None:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if name in IDS:
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
        small(path, number, name, value or 0)
    if rank is not None and rank < 1:
        raise DataError(path, f"rank is {rank}; ranks count from 1", number)
    label = None if label is None else int(label)
    return FileLabel(
        grade=label if grade is None else grade,
        label=label,
        score=None if score is None else float(score),
        rank=rank,
    )
