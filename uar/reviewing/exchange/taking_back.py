"""Judgements of another tool into the review that they came from."""

import csv
import json
import logging
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from uar.errors import DataError
from uar.reviewing.exchange import argilla, csv_table, label_studio
from uar.reviewing.exchange.kept_facts import Names
from uar.reviewing.exchange.returned_checks import check_returned, latest_of_each
from uar.reviewing.exchange.review_pairs import Returned, review_pairs
from uar.reviewing.label_database import CURRENT
from uar.reviewing.labelling import Labelling
from uar.reviewing.page_events import person
from uar.storage.files import read_json

log = logging.getLogger(__name__)
NO_NAMES = Names()
FROM_FILE = "file:"  # begins the ids of labels that were taken back
MS = 3  # digits of seconds that files of other tools keep
TOOLS = {"label_studio": label_studio, "argilla": argilla, "csv": csv_table}


def write_for(tool: str, labelling: Labelling, folder: Path) -> Path:
    """The review as the file that the tool takes."""
    if tool not in TOOLS:
        raise DataError(f"export={tool}", f"no such tool; allowed: {', '.join(TOOLS)}")
    path = TOOLS[tool].write(folder, review_pairs(labelling), labelling.manner)
    log.info("Written: %s; import=FILE takes back what was judged there", path)
    return path


def take_back(labelling: Labelling, path: Path, names: Names = NO_NAMES) -> int:
    """Keep what a tool's file says, all or nothing; what is kept already is not kept twice. Returns how many judgements are
    new. `names`: of people by the tool's ids. DataError where a value is out of its range, or nothing is judged, or nothing of
    this review."""
    passages = labelling.database.rows("select * from passages join items using (item)")
    places = {(row["query_id"], row["doc_id"]): (row["item"], row["place"]) for row in passages}
    in_files = labelling.manner.in_files
    shown = {at for row, at in zip(passages, places, strict=True) if in_files(at[0], row["label"], row["grade"]) is not None}
    try:
        found = list(_read(path, names))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, csv.Error) as error:
        raise DataError(path, f"not as the tool writes it ({type(error).__name__}: {error}); export it there again") from error
    own = [one for one in found if (one.query_id, one.doc_id) in places]
    if not found:
        raise DataError(path, "nothing is judged in it; give the file that the tool exports")
    if not own:
        raise DataError(path, f"none of its {len(found)} judgements is of a passage of this review; give its own file")
    corpus = labelling.collection.corpus
    for one in own:
        length = len(corpus.parts(one.doc_id)[1]) if one.end is not None else 0
        check_returned(path, one, len(labelling.manner.scale), length, labelling.clock())
    chosen = latest_of_each(path, own)
    with labelling.database.change():
        pairs = [(one.query_id, one.doc_id) for one in chosen]
        kept = [_keep(labelling, *places[at], one, at in shown) for at, one in zip(pairs, chosen, strict=True)]
        _finish(labelling)
    new, older = kept.count("new"), kept.count("older")
    others = len(found) - len(own)
    if others:
        log.warning(
            "%s: %d of %d judgements are of passages that this review lacks, and are left out", path, others, len(found)
        )
    if older:
        log.warning("%s: %d judgements differ from what was judged here since, and are left out", path, older)
    if silent := [at for at, one in zip(pairs, chosen, strict=True) if one.shown is None]:
        line = (
            "%s: %d judgements do not say whether a suggestion was seen (suggestion_shown); %d count as made with one in "
            "sight, since files of this review show them (suggestion=%s)"
        )
        log.warning(line, path, len(silent), sum(at in shown for at in silent), labelling.manner.suggestion)
    log.info("%s: %d judgements, %d of them new", path, len(chosen), new)
    return new


def _keep(labelling: Labelling, item: int, place: int, one: Returned, in_sight: bool) -> str:
    """Within a change of the database: keep a judgement that was made elsewhere as `new`. It is the `same` where the person's
    label is that already, and `older` where the person gave another one here after it: later by the clock, or where the file
    has no times, after it was taken back. `in_sight`: whether files show a suggestion, where this one does not say."""
    name = person(one.who)
    given = labelling.database.rows(
        """select id, grade, confidence, start, end, time from labels where item = ? and place = ? and who = ?
        order by rowid desc""",
        item, place, name,
    )  # fmt: skip
    if given and _says(given[0], one):
        return "same"
    taken_back = next((row for row in given if row["id"].startswith(FROM_FILE)), None)
    if one.time is None and taken_back is not None and _says(taken_back, one):
        return "older"
    edited = bool(given) and one.judgement == given[0]["id"]
    if given and not edited and one.time is not None and round(one.time, MS) < round(given[0]["time"], MS):
        return "older"
    shown = in_sight if one.shown is None else one.shown
    values = (
        FROM_FILE + secrets.token_hex(16), item, place, name, one.grade, one.confidence, one.seconds,
        labelling.clock() if one.time is None else one.time,
        shown or labelling.has_seen(item, place, name), one.start, one.end, labelling.manner.guideline_hash,
    )  # fmt: skip
    labelling.changes += 1
    labelling.database.write(f"insert into labels values ({', '.join('?' * len(values))})", [values])
    return "new"


def _says(row: sqlite3.Row, one: Returned) -> bool:
    marks = (row["start"], row["end"]) == (one.start, one.end)
    if one.whole:
        return bool((row["grade"], row["confidence"]) == (one.grade, one.confidence) and marks)
    return bool(row["grade"] == one.grade and (one.start is None or marks))  # not every tool keeps them


def _finish(labelling: Labelling) -> None:
    """Questions all of whose passages a person has judged are done by the person."""
    done = labelling.database.rows(
        f"""with current as ({CURRENT}) select item, who from current group by item, who
        having count(*) = (select count(*) from passages where passages.item = current.item)"""
    )
    for row in done:
        labelling.turn(row["item"], row["who"], "done", labelling.clock())


def _read(path: Path, names: Names) -> Iterator[Returned]:
    if not path.is_file():
        raise DataError(path, "no such file; give one of Label Studio, Argilla or a CSV")
    if path.suffix in (".csv", ".tsv"):
        return csv_table.read(path, names)
    try:
        content = read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(path, f"no JSON ({error}); give a .csv, or the JSON export of Label Studio or Argilla") from error
    if isinstance(content, list):
        for tool in (label_studio, argilla):
            if tool.reads(content):
                return tool.read(path, names)
    raise DataError(path, "neither tasks of Label Studio nor records of Argilla; give the JSON export of one of them")
