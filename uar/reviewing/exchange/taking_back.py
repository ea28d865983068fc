"""Judgements of another tool into the review that they came from."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from uar.errors import DataError
from uar.reviewing.exchange import argilla, csv_table, label_studio
from uar.reviewing.exchange.review_pairs import Returned, review_pairs
from uar.reviewing.label_database import CURRENT
from uar.reviewing.labelling import Labelling
from uar.reviewing.page_events import person
from uar.storage.files import digest, read_json

log = logging.getLogger(__name__)
TOOLS = {"label_studio": label_studio, "argilla": argilla, "csv": csv_table}


def write_for(tool: str, labelling: Labelling, folder: Path) -> Path:
    """The review as the file that the tool takes."""
    if tool not in TOOLS:
        raise DataError(f"export={tool}", f"no such tool; allowed: {', '.join(TOOLS)}")
    path = TOOLS[tool].write(folder, review_pairs(labelling), labelling.manner)
    log.info("Written: %s; import=FILE takes back what was judged there", path)
    return path


def take_back(labelling: Labelling, path: Path) -> int:
    """Keep what a tool's file says, all or nothing; what is kept already is not kept twice. Returns how many judgements are
    new. DataError where a grade is none of the scale, or none of the judgements is of this review."""
    places = {
        (row["query_id"], row["doc_id"]): (row["item"], row["place"])
        for row in labelling.database.rows("select query_id, doc_id, item, place from passages join items using (item)")
    }
    try:
        found = list(_read(path))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise DataError(path, f"not as the tool writes it ({type(error).__name__}: {error}); export it there again") from error
    own = [one for one in found if (one.query_id, one.doc_id) in places]
    if found and not own:
        raise DataError(path, f"none of its {len(found)} judgements is of a passage of this review; give its own file")
    last = len(labelling.manner.scale) - 1
    for one in own:
        if not 0 <= one.grade <= last:
            raise DataError(path, f"grade is {one.grade}; 0 to {last} are allowed (grades=)", one.row)
    new = 0
    with labelling.database.change():
        for one in own:
            item, place = places[one.query_id, one.doc_id]
            new += _keep(labelling, item, place, one)
        _finish(labelling)
    others = len(found) - len(own)
    if others:
        log.warning(
            "%s: %d of %d judgements are of passages that this review lacks, and are left out", path, others, len(found)
        )
    log.info("%s: %d judgements, %d of them new", path, len(own), new)
    return new


def _keep(labelling: Labelling, item: int, place: int, one: Returned) -> bool:
    """Within a change of the database: keep a judgement that was made elsewhere, unless the person's label is that already, or
    one that was given here later. Whether it was kept."""
    name = person(one.who)
    now = labelling.database.row(
        "select grade, start, end, time from labels where item = ? and place = ? and who = ? order by rowid desc limit 1",
        item, place, name,
    )  # fmt: skip
    if now is not None:
        marks = one.start is None or (now["start"], now["end"]) == (one.start, one.end)  # not every tool keeps them
        same = now["grade"] == one.grade and marks
        if same or (one.time is not None and one.time < now["time"]):
            return False
    event_id = digest(one.query_id, one.doc_id, one.who, one.grade, one.time, one.start, one.end)
    values = (
        event_id, item, place, name, one.grade, one.confidence, one.seconds, one.time or labelling.clock(), one.shown,
        one.start, one.end, labelling.manner.guideline_hash,
    )  # fmt: skip
    labelling.changes += 1
    return labelling.database.write(f"insert or ignore into labels values ({', '.join('?' * len(values))})", [values]) > 0


def _finish(labelling: Labelling) -> None:
    """Questions all of whose passages a person has judged are done by the person."""
    done = labelling.database.rows(
        f"""with current as ({CURRENT}) select item, who from current group by item, who
        having count(*) = (select count(*) from passages where passages.item = current.item)"""
    )
    for row in done:
        labelling.turn(row["item"], row["who"], "done", labelling.clock())


def _read(path: Path) -> Iterator[Returned]:
    if not path.is_file():
        raise DataError(path, "no such file; give one of Label Studio, Argilla or a CSV")
    if path.suffix in (".csv", ".tsv"):
        return csv_table.read(path)
    try:
        content = read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(path, f"no JSON ({error}); give a .csv, or the JSON export of Label Studio or Argilla") from error
    if isinstance(content, list):
        for tool in (label_studio, argilla):
            if tool.reads(content):
                return tool.read(path)
    raise DataError(path, "neither tasks of Label Studio nor records of Argilla; give the JSON export of one of them")
