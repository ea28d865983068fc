"""Parts of an annotation store: Parquet files of records, each written beside and renamed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uar.errors import DataError
from uar.llm.record import Record
from uar.storage.files import whole_file

GROUP = 1_024  # rows that are decoded together
SCHEMA = pa.schema(
    [(n, pa.string()) for n in ("key", "collection", "query_id")]
    + [("doc_ids", pa.list_(pa.string()))]
    + [(n, pa.string()) for n in ("stage", "template", "template_hash", "layout", "model", "engine", "output", "outcome")]
    + [(n, pa.int32()) for n in ("tokens_in", "tokens_out", "tokens_cached")]
    + [("seconds", pa.float64()), ("time", pa.float64())]
)
NAMES: list[str] = SCHEMA.names
REPETITIVE = ["collection", "query_id", "doc_ids.list.element", "stage", "template", "template_hash", "layout", "model"]
REPETITIVE += ["engine", "outcome"]

Columns = list[Any]  # Arrow arrays, one for each field of SCHEMA


def parts_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.parquet") if not p.name.startswith("."))


def table_of(records: Sequence[Record]) -> pa.Table:
    columns = {name: [getattr(r, name) for r in records] for name in NAMES}
    return pa.table(columns, schema=SCHEMA)


def write_part(part: Path, records: pa.Table) -> None:
    with whole_file(part) as beside:
        pq.write_table(records, beside, compression="zstd", row_group_size=GROUP)


def read_keys(part: Path) -> list[np.ndarray]:
    """Half keys of each row group. DataError where the file is no part."""
    with _naming(part), pq.ParquetFile(part) as file:
        if not file.schema_arrow.equals(SCHEMA):
            raise ValueError("other columns")
        groups = range(file.num_row_groups)
        return [half_keys(file.read_row_group(g, columns=["key"], use_threads=False)["key"]) for g in groups]


def read_group(part: Path, group: int) -> Columns:
    """A row group, strings that repeat as dictionaries."""
    with _naming(part), pq.ParquetFile(part, read_dictionary=REPETITIVE) as file:
        return [c.combine_chunks() for c in file.read_row_group(group, columns=NAMES, use_threads=False).columns]


def record_at(columns: Columns, row: int) -> Record:
    return Record.from_row({n: _value(column[row]) for n, column in zip(NAMES, columns, strict=True)})


def _value(cell: pa.Scalar) -> Any:
    if isinstance(cell, pa.ListScalar) and pa.types.is_dictionary(cell.type.value_type):
        return cell.values.dictionary_decode().to_pylist()  # at once; as_py goes through it element by element
    return cell.as_py()


def as_lists(columns: Columns) -> list[list[Any]]:
    """The columns as Python values: cheaper than cell by cell where many rows are wanted."""
    lists = [_plain(column).to_pylist() for column in columns]
    at = NAMES.index("doc_ids")
    lists[at] = [tuple(ids) for ids in lists[at]]
    return lists


def record_in(values: list[list[Any]], row: int) -> Record:
    return Record(**{name: column[row] for name, column in zip(NAMES, values, strict=True)})


def _plain(column: pa.Array) -> pa.Array:
    """Without dictionaries, whose to_pylist goes through them value by value."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_list(column.type) and pa.types.is_dictionary(column.type.value_type):
        return pa.ListArray.from_arrays(column.offsets, column.values.dictionary_decode())
    return column


def read_rows(part: Path, columns: Sequence[str], wanted: pc.Expression) -> pa.Table:
    """Some columns of the rows that are `wanted`."""
    with _naming(part):
        return pq.read_table(part, columns=list(columns), schema=SCHEMA, filters=wanted)


def half_keys(keys: pa.ChunkedArray) -> np.ndarray:
    """The first 64 bits of each key of 32 hexadecimal digits."""
    return np.concatenate([np.zeros(0, np.uint64), *map(_halves, keys.chunks)])


def half_key(key: str) -> int:
    return int(key[:16], 16)


def _halves(keys: pa.StringArray) -> np.ndarray:
    if not len(keys):
        return np.zeros(0, np.uint64)
    _, offsets, text = keys.buffers()
    at = np.frombuffer(offsets, np.int32)[keys.offset : keys.offset + len(keys) + 1]
    if keys.null_count or (np.diff(at) != 32).any():
        raise ValueError("other keys")
    digits = text[int(at[0]) : int(at[-1])].to_pybytes().decode("ascii")
    return np.frombuffer(bytes.fromhex(digits), dtype=">u8")[::2].astype(np.uint64)


@contextmanager
def _naming(part: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (KeyError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the file system's; pyarrow's own have no number
            raise
        raise DataError(part, f"not a part of an annotation store ({str(error).splitlines()[0]}); move it away") from error
