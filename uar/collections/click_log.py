"""Click logs: how often a passage was shown for a query, where, and how often it was clicked."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from uar.collections.collection import Collection
from uar.errors import DataError
from uar.storage.lines import PASSAGE, QUERY, check_heading, is_heading, read_lines

log = logging.getLogger(__name__)
NAMES = {
    "query": QUERY,
    "doc": PASSAGE,
    "impressions": {"impression", "impressions", "shown", "views"},
    "clicks": {"click", "clicked", "clicks"},
    "position": {"position", "rank"},
}
COLUMNS = tuple(NAMES)


class Shown(NamedTuple):
    """A passage was shown at `position` (from 1) for a query `impressions` times and clicked `clicks` times."""

    query_id: str
    doc_id: str
    impressions: int
    clicks: int
    position: int


def click_lines(path: Path) -> Iterator[tuple[int, Shown, bool]]:
    """(line number, line, whether it says a position) of a log, of whatever queries and passages; a header is skipped.
    DataError names a faulty line."""
    for number, line in read_lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if number == 1 and len(cells) > 2 and is_heading(cells[2]):
            check_heading(path, number, cells, NAMES)
            continue
        if len(cells) not in (4, 5):
            raise DataError(path, f"{len(cells)} columns; {', '.join(COLUMNS[:4])} (and position) are needed, by tabs", number)
        counts = [int(c) if c.isdecimal() else -1 for c in cells[2:]]
        if min(counts) < 0 or counts[1] > counts[0] or (len(counts) > 2 and counts[2] < 1):
            raise DataError(
                path, f"{', '.join(COLUMNS[2:])} are {cells[2:]}; whole numbers, clicks ≤ impressions, position from 1", number
            )
        position = counts[2] if len(counts) > 2 else 1
        yield number, Shown(cells[0], cells[1], counts[0], counts[1], position), len(counts) > 2


def read_clicks(path: Path, collection: Collection, tell: bool = True) -> list[Shown]:
    """The log's lines; lines of other splits' queries are left out. DataError names a faulty line. `tell`: say what is left
    out."""
    rows, others = [], 0
    without = 0
    for number, row, has_position in click_lines(path):
        if row.query_id not in collection.queries:
            others += 1
            continue
        if collection.corpus.row(row.doc_id) < 0:
            raise DataError(path, f"passage id {row.doc_id!r} is not in the corpus; remove the line", number)
        without += not has_position
        rows.append(row)
    if others and tell:
        log.info("%s: %d lines are of queries that %s does not have, and left out", path, others, collection.reference)
    if rows and without == len(rows) and tell:
        log.warning("%s has no positions (a fifth column): click-through is not corrected for them", path)
    elif without and tell:
        log.warning("%s: %d of %d lines have no position (a fifth column) and count as shown first", path, without, len(rows))
    return rows
