"""Candidates files: one {query_id, candidates} line a query, its passage ids in order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from uar.errors import DataError
from uar.storage.lines import contradiction, log_repeats, one_word, read_id, read_jsonl


class Candidates(NamedTuple):
    """The passages of a query, each once; `line` is where the file lists them."""

    line: int
    query_id: str
    doc_ids: list[str]


def read_candidates(path: Path) -> Iterator[Candidates]:
    """Each query of a file once, in file order.

    A passage that a line names again counts at its first place, and a query may stand there again with the same passages; the
    log says how many do. DataError for a line that is faulty, or that lists other passages of a query than an earlier one.
    """
    lists: dict[str, int] = {}  # hashes, since the lists of a large file are not held here
    repeats = 0
    for row in _lines(path):
        doc_ids = list(dict.fromkeys(row.doc_ids))
        repeats += len(row.doc_ids) - len(doc_ids)
        own = hash(tuple(doc_ids))
        if row.query_id not in lists:
            lists[row.query_id] = own
            yield row._replace(doc_ids=doc_ids)
        elif lists[row.query_id] == own:
            repeats += len(doc_ids)
        else:
            first = next(other.line for other in _lines(path) if other.query_id == row.query_id)
            raise contradiction(path, f"query {row.query_id!r}", first, row.line)
    log_repeats(path, repeats, "candidates")


def _lines(path: Path) -> Iterator[Candidates]:
    for number, row in read_jsonl(path):
        yield Candidates(number, read_id(path, number, row, "query_id"), _doc_ids(path, number, row))


def _doc_ids(path: Path, number: int, row: dict[str, Any]) -> list[str]:
    given = row.get("candidates")
    if not isinstance(given, list):
        raise DataError(path, f"'candidates' is {given!r}; a list of passage ids is needed", number)
    ids = [doc_id if isinstance(doc_id, str) else _from_number(path, number, doc_id) for doc_id in given]
    if " ".join(ids).split() != ids:
        for doc_id in ids:
            one_word(path, number, doc_id)
    return ids


def _from_number(path: Path, number: int, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(path, f"'candidates' holds {value!r}; passage ids are strings", number)
    return str(value)
