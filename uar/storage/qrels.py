"""Qrels: grades of passages a query, as TREC and as BEIR write them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from uar.errors import DataError
from uar.storage.files import whole_file
from uar.storage.lines import (
    NO_WORD,
    PASSAGE,
    QUERY,
    check_heading,
    contradiction,
    is_heading,
    log_repeats,
    one_word,
    read_lines,
    refuse_spaces,
)

Qrels = dict[str, dict[str, int]]  # grade by query id and passage id
LARGEST = 2**31
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
GRADE = {"grade", "label", "rel", "relevance", "score"}
BEIR = {"query-id": QUERY, "corpus-id": PASSAGE, "score": GRADE}
TREC = {"query": QUERY, "0": {"iter", "iteration", "q"}, "passage": PASSAGE, "grade": GRADE}


def read_qrels(path: Path) -> Qrels:
    """Grades in file order.

    A line is `query 0 passage grade` (TREC, any white space) or `query passage grade` parted by tabs (BEIR); the first says
    which, and may be a header, which must not name another order. A pair may stand there again with the same grade, and the
    log says how many do. DataError for a line that is faulty, or that gives a pair another grade than an earlier one.
    """
    qrels: Qrels = {}
    lines = 0
    for number, query_id, doc_id, grade in qrel_lines(path):
        lines += 1
        if qrels.setdefault(query_id, {}).setdefault(doc_id, grade) != grade:
            raise contradiction(path, f"passage {doc_id!r} of query {query_id!r}", line_of(path, query_id, doc_id), number)
    log_repeats(path, lines - sum(map(len, qrels.values())), "judgements")
    return qrels


def line_of(path: Path, query_id: str, doc_id: str | None = None) -> int:
    """The first line of a query, or of a pair, that the file has."""
    return next(number for number, q, d, _ in qrel_lines(path) if q == query_id and doc_id in (None, d))


def write_qrels(path: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    """(query id, passage id, grade) as TREC qrels. UserError for an id with white space."""
    query_ids, doc_ids, grades = zip(*given, strict=True) if (given := list(rows)) else ((), (), ())
    ids = (pa.array(own, pa.string()) for own in (query_ids, doc_ids))
    write_qrels_blocks(path, [(*ids, pa.array(grades, pa.int64()))])


def write_qrels_blocks(path: Path, blocks: Iterable[tuple[pa.Array, pa.Array, pa.Array]]) -> int:
    """Columns of many rows at a time as TREC qrels, and the number of rows; otherwise as `write_qrels`."""
    rows = 0
    with whole_file(path) as beside, beside.open("wb") as file:
        for query_ids, doc_ids, grades in blocks:
            for ids in (query_ids, doc_ids):
                if pc.any(pc.match_substring_regex(ids, NO_WORD)).as_py():
                    refuse_spaces(path, ids.to_pylist())
            ends = pc.binary_join_element_wise(grades.cast(pa.string()), "\n", "")
            lines = pc.binary_join_element_wise(query_ids, "0", doc_ids, ends, " ")
            file.write(pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "")[0].as_buffer())
            rows += len(lines)
    return rows


def qrel_lines(path: Path) -> Iterator[tuple[int, str, str, int]]:
    """Line number, query id, passage id and grade."""
    columns = 0  # 3 for BEIR, 4 for TREC
    for number, line in read_lines(path):
        first = not columns
        if first:
            columns = 3 if line.count("\t") == 2 else 4
        cells = [cell.strip() for cell in line.split("\t")] if columns == 3 else line.split()
        if len(cells) != columns:
            wanted = "query-id, corpus-id and score, parted by tabs" if columns == 3 else "query, 0, passage and grade (TREC)"
            either = ", or query-id, corpus-id and score, parted by tabs" if first else ""
            raise DataError(path, f"{len(cells)} columns; {wanted}{either}, are needed", number)
        query_id, doc_id, grade = cells[0], cells[-2], cells[-1]
        if not WHOLE.fullmatch(grade):
            if first and is_heading(grade):
                check_heading(path, number, cells, BEIR if columns == 3 else TREC)
                if re.sub(r"[^a-z]", "", query_id.lower()) in QUERY:
                    continue
            raise DataError(path, f"grade is {grade!r}; a whole number is needed", number)
        if not query_id or not doc_id:
            raise DataError(path, f"empty query or passage id ({query_id!r}, {doc_id!r}); give both", number)
        if columns == 3:
            one_word(path, number, query_id)
            one_word(path, number, doc_id)
        yield number, query_id, doc_id, small(path, number, "grade", int(grade))


def small(path: Path, number: int, name: str, value: int) -> int:
    """A whole number that fits the columns of a table; DataError for another."""
    if abs(value) >= LARGEST:
        raise DataError(path, f"{name} is {value}; a whole number below {LARGEST} is needed", number)
    return value
