"""Text files line by line: UTF-8 with or without BOM, LF or CRLF, faults named by file and line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uar.errors import DataError


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
    return _sound(path, number, key, value)


def passage_ids(path: Path, number: int, row: dict[str, Any]) -> list[str]:
    """The ids under `candidates`, as strings."""
    ids = row.get("candidates")
    if not isinstance(ids, list):
        raise DataError(path, f"'candidates' is {ids!r}; a list of passage ids is needed", number)
    return [str(doc_id) for doc_id in ids]


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
