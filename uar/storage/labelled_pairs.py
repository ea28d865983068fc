"""Files of labels by anybody: `labels.parquet` of a run, another Parquet table, TREC qrels, a BEIR-style TSV."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uar.errors import DataError
from uar.storage.copies import first_of_hashes
from uar.storage.label_files import BLOCK, NAME, no_parquet, tell_assisted
from uar.storage.lines import NO_WORD, contradiction, log_repeats, one_word
from uar.storage.qrels import LARGEST, qrel_lines

log = logging.getLogger(__name__)
IDS = ("query_id", "doc_id")
VALUES = {"label": pa.int8(), "grade": pa.int32(), "score": pa.float64(), "rank": pa.int32()}
TEXT = (".tsv", ".qrels", ".txt", ".trec")
FAULTS: Sequence[tuple[str, Callable[[pa.Array], pa.Array], str]] = (  # column, which of its values, what is said
    ("label", lambda x: pc.invert(pc.is_in(x, pa.array([0, 1, None]))), "{}; 0 or 1 is needed (grades go under 'grade')"),
    ("score", lambda x: pc.invert(pc.is_finite(x)), "{}; a finite number or null is needed"),
    *((name, lambda x: pc.or_(pc.less_equal(x, -LARGEST), pc.greater_equal(x, LARGEST)),
       f"{{}}; a whole number below {LARGEST} is needed") for name in ("grade", "rank")),
    ("rank", lambda x: pc.less(x, 1), "{}; ranks count from 1"),
)  # fmt: skip


@dataclass(frozen=True)
class LabelledPairs:
    """(query, passage) pairs in file order, each once. `query_ids`, `doc_ids`: every id once, in file order; query, doc:
    (pairs,) places in them. `values`: by the names of `VALUES`, (pairs,), null where the file does not say; qrels have grades
    alone, and a label 0/1 with no grade beside it is the grade too."""

    query_ids: list[str]
    doc_ids: pa.StringArray
    query: np.ndarray
    doc: np.ndarray
    values: Mapping[str, pa.ChunkedArray]


@dataclass(frozen=True, slots=True)
class FileLabel:
    """What a file says of one passage; None where it does not say. `rank`: from 1."""

    grade: int | None
    label: int | None = None
    score: float | None = None
    rank: int | None = None


Labels = dict[str, dict[str, FileLabel]]  # by query id and passage id


def read_pairs(path: Path) -> LabelledPairs:
    """A text file (.tsv, .qrels, .txt, .trec) is read as qrels; see `read_qrels`. Parquet holds query_id, doc_id and at least
    one of label, grade, score and rank. A folder is read for its labels.parquet. A train run's must hold one stage, and the
    log says which. A pair may stand there again with the same values, and the log says how many do. Every fault is a
    DataError that names the file and the line, or the row (from 1) of a Parquet file; so is a pair with other values than
    before.
    """
    if path.is_dir():
        folder, path = path, path / NAME
        if not path.is_file():
            raise DataError(folder, f"a folder without {NAME}; give the folder of a run, or a file of labels")
    if path.suffix not in (".parquet", *TEXT):
        raise DataError(path, f"unknown kind of file {path.suffix!r}; allowed: .parquet, {', '.join(TEXT)}, a run folder")
    text = path.suffix != ".parquet"
    table = pa.Table.from_batches(_text_blocks(path) if text else _parquet_blocks(path), _SCHEMA)
    if not len(table):
        raise DataError(path, "no labels; at least one is needed")
    table = table.unify_dictionaries()
    query, doc = (np.concatenate([chunk.indices.to_numpy() for chunk in table[name].chunks]) for name in IDS)
    query_ids, doc_ids = (table[name].chunk(0).dictionary for name in IDS)
    pairs = LabelledPairs(query_ids.to_pylist(), doc_ids, query, doc, {name: table[name] for name in VALUES})
    return _each_once(path, pairs, text)


def read_labels(path: Path) -> Labels:
    """What `read_pairs` reads, in file order, by query and passage."""
    pairs = read_pairs(path)
    labels: Labels = {query_id: {} for query_id in pairs.query_ids}
    places = zip(pairs.query.tolist(), pairs.doc_ids.take(pa.array(pairs.doc)).to_pylist(), strict=True)
    values = (pairs.values[name].to_pylist() for name in ("grade", "label", "score", "rank"))
    for (query, doc_id), *of_pair in zip(places, *values, strict=True):
        labels[pairs.query_ids[query]][doc_id] = FileLabel(*of_pair)
    return labels


_SCHEMA = pa.schema([*((name, pa.dictionary(pa.int32(), pa.string())) for name in IDS), *VALUES.items()])


def _text_blocks(path: Path) -> Iterator[pa.RecordBatch]:
    lines = qrel_lines(path)
    while block := list(islice(lines, BLOCK)):
        _, query_ids, doc_ids, grades = zip(*block, strict=True)
        ids = [pa.array(own, pa.string()).dictionary_encode() for own in (query_ids, doc_ids)]
        yield _block(ids, {"grade": pa.array(grades, pa.int64())})


def _parquet_blocks(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise no_parquet(path, error) from error
    with file:
        names = file.schema_arrow.names
        given = [name for name in VALUES if name in names]
        if not set(IDS) <= set(names) or not given:
            raise DataError(
                path, f"columns are {', '.join(names)}; query_id, doc_id and one of {', '.join(VALUES)} are needed"
            )
        for name in (*IDS, *given):
            _check_type(path, name, file.schema_arrow.field(name).type)
        one_stage(path)
        tell_assisted(path)
        start = 1
        for batch in file.iter_batches(BLOCK, columns=[*IDS, *given]):
            ids = [batch[name].cast(pa.string()).dictionary_encode() for name in IDS]
            values = {name: _wide(path, name, batch[name]) for name in given}
            _check_rows(path, start, ids, values)
            start += len(batch)
            yield _block(ids, values)


def _wide(path: Path, name: str, column: pa.Array) -> pa.Array:
    """As 64 bits, in which a value that is too large still stands."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    try:
        return column.cast(pa.float64(), safe=False) if name == "score" else column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(path, f"column {name!r}: {error}; whole numbers below {LARGEST} are needed") from error


def _block(ids: Sequence[pa.DictionaryArray], values: Mapping[str, pa.Array]) -> pa.RecordBatch:
    columns = {name: values.get(name, pa.nulls(len(ids[0]), pa.int64())) for name in VALUES}
    columns["grade"] = pc.coalesce(columns["grade"], columns["label"])
    return pa.record_batch([*ids, *(columns[name].cast(kind) for name, kind in VALUES.items())], _SCHEMA)


def _check_rows(path: Path, start: int, ids: Sequence[pa.DictionaryArray], values: Mapping[str, pa.Array]) -> None:
    """DataError for a block with a faulty row. `start`: number of its first row."""
    odd = np.logical_or(*(pc.match_substring_regex(own.dictionary, NO_WORD).take(own.indices).fill_null(True) for own in ids))
    if odd.any():
        number, (query_id, doc_id) = start + int(odd.argmax()), (own[int(odd.argmax())].as_py() for own in ids)
        if not (query_id and doc_id and query_id.strip() and doc_id.strip()):
            raise DataError(path, f"empty query or passage id ({query_id!r}, {doc_id!r}); give both", number)
        one_word(path, number, query_id)
        one_word(path, number, doc_id)
    empty = np.logical_and.reduce([own.is_null() for own in values.values()])
    if empty.any():
        raise DataError(path, f"no value under {', '.join(values)}; give at least one", start + int(empty.argmax()))
    for name, which, told in FAULTS:
        if name in values and (faulty := np.asarray(which(values[name]).fill_null(False))).any():
            at = int(faulty.argmax())
            raise DataError(path, f"{name} is {told.format(values[name][at].as_py())}", start + at)


def _each_once(path: Path, pairs: LabelledPairs, text: bool) -> LabelledPairs:
    """Without the rows that say again what an earlier one says; DataError for one that says something else."""
    first = first_of_hashes(pairs.query.astype(np.int64) << 32 | pairs.doc)
    again = np.flatnonzero(first != np.arange(len(first)))
    if not len(again):
        return pairs
    told, before = (pa.table(dict(pairs.values)).take(pa.array(rows)) for rows in (again, first[again]))
    same = np.logical_and.reduce([_same(told[name], before[name]) for name in VALUES])
    if not same.all():
        at = int(again[same.argmin()])
        what = f"passage {pairs.doc_ids[pairs.doc[at]].as_py()!r} of query {pairs.query_ids[pairs.query[at]]!r}"
        raise contradiction(path, what, *(_number(path, int(row), text) for row in (first[at], at)))
    log_repeats(path, len(again), "judgements" if text else "labels")
    kept = np.delete(np.arange(len(first)), again)
    values = pa.table(dict(pairs.values)).take(pa.array(kept))
    return replace(pairs, query=pairs.query[kept], doc=pairs.doc[kept], values={name: values[name] for name in VALUES})


def _same(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> np.ndarray:
    both_null = np.asarray(ours.is_null()) & np.asarray(theirs.is_null())
    return both_null | np.asarray(pc.equal(ours, theirs).fill_null(False))


def _number(path: Path, row: int, text: bool) -> int:
    """The line, or the row from 1, that a row from 0 is in the file."""
    return next(islice(qrel_lines(path), row, None))[0] if text else row + 1


def one_stage(path: Path) -> None:
    """DataError for several: the stages of a training may say different things of a passage, and none of them is the labels
    of the run. `path`: of a Parquet file, which may have no column of them."""
    if "stage" not in pq.read_schema(path).names:
        return
    column = pq.read_table(path, columns=["stage"], read_dictionary=["stage"])["stage"]
    stages = [stage for stage in column.unique().to_pylist() if stage is not None]
    if len(stages) > 1:
        raise DataError(
            path, f"labels of {len(stages)} stages ({', '.join(stages)}); give a file with the rows of one of them"
        )
    if stages:
        log.info("%s: labels of the training stage %s", path, stages[0])


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
