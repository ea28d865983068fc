"""A table for spreadsheets: a row a judgement, one without a grade for a passage that nobody judged yet."""

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from uar.errors import DataError
from uar.reviewing.exchange.kept_facts import Names
from uar.reviewing.exchange.review_pairs import Returned, ReviewPair
from uar.reviewing.manner import Manner
from uar.storage.files import whole_file

log = logging.getLogger(__name__)
FILE = "review.csv"
TEXTS = ("query_id", "doc_id", "question", "title", "passage", "who")
WHOLE = ("confidence", "start", "end")
COLUMNS = (*TEXTS, "grade", *WHOLE, "seconds", "time", "suggestion", "suggestion_shown", "judgement")
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet would compute, and that behind marks such as ours
LONGEST = 2**31 - 1  # characters of a cell; the csv module takes 131,072 where nobody says more


def write(folder: Path, pairs: Iterable[ReviewPair], manner: Manner) -> Path:
    """`review.csv`, in UTF-8 with a mark that spreadsheets look for."""
    with whole_file(folder / FILE) as beside, beside.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for pair in pairs:
            texts = {"question": pair.question, "title": pair.title, "passage": pair.text}
            shared = {"query_id": pair.query_id, "doc_id": pair.doc_id, **texts}
            nobody = {"suggestion": pair.suggestion, "suggestion_shown": int(pair.suggestion is not None)}
            for row in pair.judgements or [nobody]:
                own = {name: row.get(name) for name in COLUMNS if name in row} | shared
                own["suggestion"] = row.get("suggestion") if row["suggestion_shown"] else None
                table.writerow({name: _cell(value) for name, value in own.items()})
    return folder / FILE


def read(path: Path, names: Names) -> Iterator[Returned]:
    """The rows that have a grade; the log says how many lost theirs. The columns may be parted by commas, semicolons or tabs.
    `names`: of people by what stands there for them."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 ({error.reason}); save the sheet as CSV in UTF-8") from error
    csv.field_size_limit(LONGEST)
    with io.StringIO(text, newline="") as file:
        head = file.readline()
        file.seek(0)
        table = csv.DictReader(file, delimiter=max(",;\t", key=head.count))
        lacking = [name for name in ("query_id", "doc_id", "who", "grade") if name not in (table.fieldnames or ())]
        if lacking:
            raise DataError(path, f"columns are {', '.join(table.fieldnames or ())}; {', '.join(lacking)} are needed too", 1)
        whole, cleared = set(WHOLE) <= set(table.fieldnames or ()), 0
        for row in table:
            if not (row["grade"] or "").strip():
                cleared += bool((row.get("judgement") or "").strip())
                continue
            at = table.line_num
            start, end = (_whole(path, at, row, name) for name in ("start", "end"))
            yield Returned(
                at,
                _text(row["query_id"]),
                _text(row["doc_id"]),
                names[_text(row["who"])],
                _whole(path, at, row, "grade") or 0,
                None if (seen := _number(path, at, row, "suggestion_shown")) is None else bool(seen),
                _number(path, at, row, "time"),
                _number(path, at, row, "seconds"),
                _number(path, at, row, "confidence"),
                start,
                end,
                (row.get("judgement") or "").strip() or None,
                whole,
            )
    if cleared:
        log.warning("%s: the grades of %d judgements were cleared; they stay, and the page takes them back", path, cleared)


def _cell(value: Any) -> Any:
    if hasattr(value, "timestamp"):
        return round(value.timestamp(), 3)
    if isinstance(value, bool):
        return int(value)
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _text(cell: str | None) -> str:
    text = cell or ""
    return text[1:] if text[:1] == "'" and FORMULA.match(text) else text


def _whole(path: Path, at: int, row: dict[str, Any], name: str) -> int | None:
    number = _number(path, at, row, name)
    if number is not None and not number.is_integer():
        raise DataError(path, f"{name} is {row[name]!r}; a whole number is needed", at)
    return None if number is None else int(number)


def _number(path: Path, at: int, row: dict[str, Any], name: str) -> float | None:
    text = (row.get(name) or "").strip()
    try:
        return float(text) if text else None
    except ValueError as error:
        raise DataError(path, f"{name} is {text!r}; a number is needed", at) from error
