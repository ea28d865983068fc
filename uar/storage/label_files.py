"""The file `labels.parquet` of an annotate or train run."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uar.errors import DataError
from uar.storage.files import whole_file

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
BY_PEOPLE = r"^human(\+|$)"  # sources of labels that a person gave, alone or as an LLM did
ASSISTED = "assisted"  # further column of people's labels: true where they saw what an LLM says of the passage
BLOCK = 1 << 17  # rows


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
        raise no_parquet(path, error) from error
    if not {"query_id", "doc_id", "label"} <= there:
        raise DataError(path, f"columns are {', '.join(sorted(there))}; query_id, doc_id and label are needed")
    for name in names:
        if name not in there:
            table = table.append_column(name, pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table.select(list(names))


def tell_assisted(path: Path) -> None:
    """Warn of labels by people who saw what an LLM says, where a Parquet file knows of any."""
    if ASSISTED in pq.read_schema(path).names:
        seen = pc.sum(pq.read_table(path, columns=[ASSISTED])[ASSISTED]).as_py()
        if seen:
            line = "%s: %d labels by people were made while an LLM's suggestion was seen, and are not independent of it"
            log.warning(line, path, seen)


def no_parquet(path: Path, error: Exception) -> DataError:
    return DataError(path, f"cannot be read as Parquet ({str(error).splitlines()[0]}); give a whole file")
