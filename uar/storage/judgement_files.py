"""Files of judgements by people: one row for each passage that a person judged, with what is known of how it was judged."""

import contextlib
import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from uar.errors import DataError
from uar.storage.files import write_table
from uar.storage.label_files import ASSISTED

log = logging.getLogger(__name__)
NAME = "judgements.parquet"
DATABASE = "review.sqlite"  # that a review makes the file from
ENTRIES = "select count(*) from labels"  # in it: all that was ever given
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("grade", pa.int32()),
        ("label", pa.int8()),  # 1 from the positive grade up
        ("who", pa.string()),
        ("time", pa.timestamp("ms", "UTC")),
        ("seconds", pa.float32()),  # that the person took for it
        ("confidence", pa.float32()),  # 1 sure, 0 unsure
        ("suggestion_shown", pa.bool_()),  # whether the person saw what an LLM said
        ("suggestion", pa.int8()),  # the LLM's label; null: it said nothing
        ("suggestion_grade", pa.int32()),  # its grade, where it gave one on the same scale
        ("start", pa.int32()),  # of the marked words, in characters of the passage's text
        ("end", pa.int32()),
        ("words", pa.string()),
        ("guideline", pa.string()),  # hash of the guideline of then
        ("texts", pa.string()),  # hash of question and passage
    ]
)
NEEDED = ("query_id", "doc_id", "grade")
ABOUT = b"uar"  # key of the table's metadata


class JudgementFile(NamedTuple):
    """`table`: the columns of `SCHEMA`; those that a file lacks are null. `positive_grade`: from which a passage is positive.
    `about`: `grades` (meaning by grade) and `collection`, as far as the file says them."""

    table: pa.Table
    positive_grade: int
    about: Mapping[str, Any]


def write_judgements(path: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Rows by column name as a Parquet file."""
    table = pa.Table.from_pylist(list(rows), SCHEMA)
    write_table(path, table.replace_schema_metadata({ABOUT: json.dumps(about, ensure_ascii=False)}))


def read_judgements(path: Path) -> JudgementFile:
    """Of a file, or of the folder of a review. DataError where it is no such file, or a row lacks an id or a grade.

    A review's file of labels has them too: what it calls `assisted` is `suggestion_shown`. Of judgements that do not say it
    the log gives the number."""
    place = path / NAME if path.is_dir() else path
    if not place.is_file():
        raise DataError(place, "no such file; give a file of judgements, or the folder of a review that has labels")
    try:
        table = pq.read_table(place)
    except (OSError, pa.ArrowException) as error:
        raise DataError(place, f"cannot be read as Parquet ({str(error).splitlines()[0]}); give a whole file") from error
    lacking = [name for name in NEEDED if name not in table.column_names]
    if lacking:
        found = ", ".join(table.column_names)
        raise DataError(place, f"columns are {found}; {', '.join(lacking)} are needed too, as a review writes them")
    if "suggestion_shown" not in table.column_names and ASSISTED in table.column_names:
        table = table.rename_columns(["suggestion_shown" if name == ASSISTED else name for name in table.column_names])
    columns = []
    for field in SCHEMA:
        try:
            there = field.name in table.column_names
            columns.append(table[field.name].cast(field.type) if there else pa.nulls(len(table), field.type))
        except pa.ArrowException as error:
            raise DataError(place, f"column {field.name!r} holds {table[field.name].type}; {field.type} is needed") from error
    found = pa.table(columns, SCHEMA)
    for name in NEEDED:
        if found[name].null_count:
            row = found[name].is_null().to_pylist().index(True) + 1
            raise DataError(place, f"no value under {name!r}; give one or remove the row", row)
    if silent := found["suggestion_shown"].null_count:
        line = (
            "%s: %d of %d judgements do not say whether a suggestion of an LLM was seen (suggestion_shown), and count as own"
        )
        log.warning(line, place, silent, len(found))
    kept = (table.schema.metadata or {}).get(ABOUT)
    about = json.loads(kept) if kept else {}
    _tell_older(place, about)
    return JudgementFile(found, _positive_grade(place, found, about), about)


def _positive_grade(path: Path, table: pa.Table, about: Mapping[str, Any]) -> int:
    """As the file says, or as its labels do; of a file of grades alone, 1. DataError where labels contradict each other."""
    if "positive_grade" in about:
        return int(about["positive_grade"])
    rows = list(zip(table["label"].to_pylist(), table["grade"].to_pylist(), strict=True))
    positive, negative = ([grade for label, grade in rows if label == wanted] for wanted in (1, 0))
    found = min(positive) if positive else max(negative, default=0) + 1
    if negative and max(negative) >= found:
        raise DataError(path, f"grade {max(negative)} is negative and grade {found} positive there; mend column 'label'")
    log.warning("%s: it does not say from which grade on a passage is positive; %d is taken", path, found)
    return found


def _tell_older(path: Path, about: Mapping[str, Any]) -> None:
    """Say so where labels came in after the file was written, since the page was killed or is open."""
    database = path.with_name(DATABASE)
    if "entries" not in about or not database.is_file():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as opened:
            missing = opened.execute(ENTRIES).fetchone()[0] - about["entries"]
    except sqlite3.Error:  # a copy of the folder, or one that cannot be written
        return
    if missing:
        line = "%s: %d entries came in after it was written; open and close the page (python -m uar.review) to have them"
        log.warning(line, path, missing)
