"""Where the records of a key lie: 16 bytes a record, whatever the records hold."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uar.llm.record import Record
from uar.llm.store.parts import (
    SCHEMA,
    Columns,
    as_lists,
    half_key,
    half_keys,
    read_group,
    read_keys,
    record_at,
    record_in,
    table_of,
)

log = logging.getLogger(__name__)
DECODED_BYTES = 512 * 2**20  # of row groups that are held decoded
RECENT, BUSY = 8, 32  # of the last so many row groups, one with so many lookups is turned into Python values
GROWTH = 4  # a segment is merged into the one before it unless that is so many times as long

Group = tuple[Path, int]  # a part and one of its row groups
Values = list[list[Any]]  # columns of Python values
Segment = tuple[np.ndarray, np.ndarray, np.ndarray]  # half keys in order, and the source and row of each


class Index:
    """Finds the records of a key in row groups of parts, and in lists of records that are held in memory.

    Half keys stand in a few sorted segments, each several times as long as the next, so that adding many small row groups
    stays cheap. The row groups that were looked into last are held decoded, up to DECODED_BYTES.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._sources: list[Group | Columns] = []
        self._decoded: OrderedDict[Group, Columns] = OrderedDict()
        self._recent: OrderedDict[Group, _Recent] = OrderedDict()
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

    def find(self, keys: Sequence[str]) -> dict[str, list[Record]]:
        """All records of some keys, by key."""
        found: dict[str, list[Record]] = {key: [] for key in keys}
        wanted = np.array([half_key(key) for key in keys], np.uint64)
        for halves, sources, rows in self._segments:
            first = halves.searchsorted(wanted)
            for place in np.flatnonzero(halves.take(first, mode="clip") == wanted).tolist():
                key, at = keys[place], int(first[place])
                while at < len(halves) and halves[at] == wanted[place]:
                    record = self._record(self._sources[sources[at]], int(rows[at]))
                    if record is not None and record.key == key:
                        found[key].append(record)
                    at += 1
        return found

    def _add(self, halves: np.ndarray, source: Group | Columns) -> None:
        if not len(halves):
            return
        rows = np.argsort(halves, kind="stable")
        sources = np.full(len(rows), len(self._sources), np.int32)
        self._sources.append(source)
        self._segments.append((halves[rows], sources, rows.astype(np.int32)))
        while len(self._segments) > 1 and len(self._segments[-2][0]) < GROWTH * len(self._segments[-1][0]):
            self._merge()

    def merge(self) -> None:
        """Of what is there make one segment, before many keys are looked up."""
        while len(self._segments) > 1:
            self._merge()

    def _merge(self) -> None:
        last, before = self._segments.pop(), self._segments.pop()
        self._segments.append(_merged(before, last))

    def _record(self, source: Group | Columns, row: int) -> Record | None:
        if isinstance(source, list):
            return record_at(source, row)
        columns = self._decoded.get(source) or self._decode(source)
        self._decoded.move_to_end(source)
        if row >= len(columns[0]):
            return None
        values = self._values_of(source, columns)
        return record_at(columns, row) if values is None else record_in(values, row)

    def _decode(self, group: Group) -> Columns:
        try:
            columns = read_group(*group)
        except FileNotFoundError:
            log.warning("%s is gone; what it held is asked again where it is needed", group[0])
            columns = SCHEMA.empty_table().columns
        self._decoded[group] = columns
        self._bytes += _size(columns)
        while self._bytes > DECODED_BYTES and len(self._decoded) > 1:
            self._bytes -= _size(self._decoded.popitem(last=False)[1])
        return columns

    def _values_of(self, group: Group, columns: Columns) -> Values | None:
        """The row group as Python values, where it is looked into again and again, as when calls come in the order kept."""
        recent = self._recent.setdefault(group, _Recent())
        self._recent.move_to_end(group)
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        recent.lookups += 1
        if recent.lookups == BUSY:
            recent.values = as_lists(columns)
        return recent.values


@dataclass
class _Recent:
    lookups: int = 0
    values: Values | None = None


def _size(columns: Columns) -> int:
    return sum(column.get_total_buffer_size() for column in columns)


def _merged(first: Segment, second: Segment) -> Segment:
    halves = np.concatenate([first[0], second[0]])
    order = np.argsort(halves, kind="stable")
    sources, rows = (np.concatenate([one, other])[order] for one, other in zip(first[1:], second[1:], strict=True))
    return halves[order], sources, rows
