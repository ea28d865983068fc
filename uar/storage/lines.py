"""Text files line by line: UTF-8 with or without BOM, LF or CRLF, faults named by file and line."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from uar.errors import DataError, UserError

log = logging.getLogger(__name__)
QUERY = {"query", "queryid", "qid", "topic", "topicid"}  # what columns are called, see `check_heading`
PASSAGE = {"corpus", "corpusid", "doc", "docid", "did", "docno", "document", "documentid", "passage", "passageid", "pid"}
MARK = "\ufeff"  # of byte order: what a file begins with is no part of its first id
NO_WORD = rf"^$|^{MARK}|[\t-\r\x1c-\x1f\x85\pZ]"  # in RE2's words: empty, so marked, or with white space as of `str.split`


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end); blank lines are left out."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror}); give a readable file") from error
    with file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(path, f"not UTF-8 ({error.reason}); save the file as UTF-8", number) from error
            if line.strip():
                yield number, line


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file."""
    for number, line in read_lines(path):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(path, f"broken JSON ({error.msg} at column {error.colno}); mend the line", number) from error
        if not isinstance(value, dict):
            raise DataError(path, f"found a JSON {type(value).__name__}, an object {{...}} is needed", number)
        yield number, value


def read_id(path: Path, number: int, row: dict[str, Any], key: str) -> str:
    """The id under `key`, as a string; numbers are taken as their digits."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        found = "no such key" if key not in row else repr(value)
        raise DataError(path, f"empty or missing id under {key!r} ({found}); give a non-empty string", number)
    return one_word(path, number, _sound(path, number, key, value))


def one_word(path: Path, number: int, value: str) -> str:
    """An id without white space: one with it would be several columns of a TREC file."""
    if value.startswith(MARK):
        raise DataError(path, f"the id {value!r} begins with a byte-order mark; take it off", number)
    if value.split() != [value]:
        raise DataError(path, f"the id {value!r} has white space in it, which no TREC file can hold; rename it", number)
    return value


def is_heading(cell: str) -> bool:
    """Whether a cell where a number is needed is a word, as in the first line of a table: not a number that is broken."""
    return any(map(str.isalpha, cell)) and not any(map(str.isdigit, cell))


def check_heading(path: Path, number: int, cells: Sequence[str], columns: Mapping[str, Set[str]]) -> None:
    """DataError where a heading has the name of one column at the place of another. `columns`: in their order, what else each
    may be called, in small letters alone. Other words may stand anywhere."""
    names = [re.sub(r"[^a-z]", "", cell.lower()) for cell in cells]
    known = set().union(*columns.values())
    if any(name in known - own for name, own in zip(names, columns.values(), strict=False)):
        raise DataError(path, f"the header is {', '.join(cells)}; {', '.join(columns)} are needed, in this order", number)


def refuse_spaces(path: Path, ids: Sequence[str]) -> None:
    """UserError for an id that would be no column or several in a TREC file that is to be written."""
    if " ".join(ids).split() != list(ids):
        odd = next(i for i in ids if i.split() != [i])
        raise UserError(f"{path}: the id {odd!r} has white space or nothing in it, which a TREC file cannot hold; rename it")


def contradiction(path: Path, what: str, first: int, second: int) -> DataError:
    """Two lines that say different things of `what`. The same said twice is no fault; see `log_repeats`."""
    return DataError(path, f"{what} stands at line {first} too and says something else there; keep one of the two", second)


def log_repeats(path: Path, repeats: int, what: str) -> None:
    """Say how often a file repeats itself."""
    if repeats:
        log.info("%s: %d %s stand there again and say the same; each counts once", path, repeats, what)


def read_string(path: Path, number: int, row: dict[str, Any], key: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise DataError(path, f"{key!r} is {value!r}, a string is needed", number)
    return _sound(path, number, key, value)


def _sound(path: Path, number: int, key: str, value: str) -> str:
    """JSON can spell half of a surrogate pair, which is no character and fits no UTF-8 file."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = ascii(value[error.start])
        raise DataError(path, f"{key!r} holds {found}, half of a character; mend or remove it", number) from error
    return value
