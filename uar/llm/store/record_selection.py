"""Records of a store by what they are about, read from all parts and journals: each once, oldest first."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uar.llm.record import Outcome, Record
from uar.llm.store.journal import journals_of, read_journal
from uar.llm.store.parts import NAMES, SCHEMA, half_keys, parts_of, read_rows, table_of

IDENTITY = ("key", "query_id", "doc_ids")  # with the collection, which a selection fixes
BATCH = 4_096


def wanted_records(collection: str, model: str, stages: Iterable[str]) -> pc.Expression:
    return (pc.field("collection") == collection) & (pc.field("model") == model) & pc.field("stage").isin(list(stages))


def select_records(folders: Sequence[Path], wanted: pc.Expression) -> Iterator[Record]:
    table = _read(folders, wanted, NAMES)
    table = table.take(_each_once(table))
    for start in range(0, len(table), BATCH):
        yield from map(Record.from_row, table.slice(start, BATCH).to_pylist())


def _read(folders: Sequence[Path], wanted: pc.Expression, columns: Sequence[str]) -> pa.Table:
    found = [SCHEMA.empty_table().select(list(columns))]
    for folder in folders:
        for journal in journals_of(folder):  # before the parts, since one may become a part meanwhile
            found.append(table_of(list(read_journal(journal))).filter(wanted).select(list(columns)))
        for part in parts_of(folder):
            try:
                found.append(read_rows(part, columns, wanted))
            except FileNotFoundError:  # gone since it was listed
                continue
    return pa.concat_tables(found)


def _each_once(table: pa.Table) -> np.ndarray:
    """Row numbers of records in order of time, of equal ones the first; a later one replaces an error, a good one any
    failure."""
    order = np.argsort(table["time"].to_numpy(), kind="stable")
    _, which, count = np.unique(half_keys(table["key"]), return_inverse=True, return_counts=True)
    repeated = order[count[which[order]] > 1]
    keep = np.ones(len(order), bool)
    kept: dict[tuple, tuple[int, str]] = {}  # row and outcome
    for at, row in zip(repeated.tolist(), table.select([*IDENTITY, "outcome"]).take(repeated).to_pylist(), strict=True):
        identity = row["key"], row["query_id"], tuple(row["doc_ids"])
        before, outcome = kept.get(identity, (at, Outcome.ERROR))
        if outcome == Outcome.ERROR or (outcome != Outcome.OK and row["outcome"] == Outcome.OK):
            keep[before], keep[at] = False, True
            kept[identity] = at, row["outcome"]
        else:
            keep[at] = False
    return order[keep[order]]
