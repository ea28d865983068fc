"""Where the records of a key lie: 16 bytes a record, whatever the records hold."""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from uar.annotation.parts import SCHEMA, Columns, half_key, half_keys, read_group, read_keys, record_at, table_of
from uar.annotation.record import Record

log = logging.getLogger(__name__)
DECODED_BYTES = 512 * 2**20  # of row groups that are held decoded
GROWTH = 4  # a segment is merged into the one before it unless that is so many times as long

Group = tuple[Path, int]  # a part and one of its row groups
Segment = tuple[np.ndarray, np.ndarray, np.ndarray]  # half keys in order, and the source and row of each


class Index:
    """Finds the records of a key in row groups of parts, and in lists of records that are held in memory.

    Half keys stand in a few sorted segments, each several times as long as the next, so that adding many small row groups
    stays cheap. The row groups that were looked into last are held decoded, up to DECODED_BYTES.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._sources: list[Group | Columns] = []
        self._decoded: OrderedDict[Group, tuple[Columns, int]] = OrderedDict()
        self._bytes = 0

    def add_part(self, part: Path) -> None:
        """DataError where the file is no part; one that is gone adds nothing."""
        try:
            groups = read_keys(part)
        except FileNotFoundError:
            return
        for group, halves in enumerate(groups):
            self._add(halves, (part, group))

    def add_records(self, records: list[Record]) -> None:
        table = table_of(records)
        self._add(half_keys(table["key"]), [column.combine_chunks() for column in table.columns])

    def find(self, key: str) -> Iterator[Record]:
        """All records of a key."""
        half = half_key(key)
        for halves, sources, rows in self._segments:
            at = int(halves.searchsorted(half))
            while at < len(halves) and halves[at] == half:
                columns, row = self._columns(self._sources[sources[at]]), int(rows[at])
                if row < len(columns[0]) and columns[0][row].as_py() == key:
                    yield record_at(columns, row)
                at += 1

    def _add(self, halves: np.ndarray, source: Group | Columns) -> None:
        if not len(halves):
            return
        rows = np.argsort(halves, kind="stable")
        sources = np.full(len(rows), len(self._sources), np.int32)
        self._sources.append(source)
        self._segments.append((halves[rows], sources, rows.astype(np.int32)))
        while len(self._segments) > 1 and len(self._segments[-2][0]) < GROWTH * len(self._segments[-1][0]):
            last, before = self._segments.pop(), self._segments.pop()
            self._segments.append(_merged(before, last))

    def _columns(self, source: Group | Columns) -> Columns:
        if isinstance(source, list):
            return source
        if source not in self._decoded:
            self._decode(source)
        self._decoded.move_to_end(source)
        return self._decoded[source][0]

    def _decode(self, group: Group) -> None:
        try:
            columns = read_group(*group)
        except FileNotFoundError:
            log.warning("%s is gone; what it held is asked again where it is needed", group[0])
            columns = SCHEMA.empty_table().columns
        size = sum(column.get_total_buffer_size() for column in columns)
        self._decoded[group] = columns, size
        self._bytes += size
        while self._bytes > DECODED_BYTES and len(self._decoded) > 1:
            self._bytes -= self._decoded.popitem(last=False)[1][1]


def _merged(first: Segment, second: Segment) -> Segment:
    halves = np.concatenate([first[0], second[0]])
    order = np.argsort(halves, kind="stable")
    sources, rows = (np.concatenate([one, other])[order] for one, other in zip(first[1:], second[1:], strict=True))
    return halves[order], sources, rows
