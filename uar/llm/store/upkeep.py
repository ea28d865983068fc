"""Looking through a store, and keeping it in order: counts, export, checks, few parts in place of many, deletion."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from uar.errors import DataError, UserError
from uar.llm.record import Outcome
from uar.llm.store.journal import adopt_journals, journals_of, read_journal
from uar.llm.store.parts import GROUP, NAMES, SCHEMA, half_keys, parts_of, read_keys, read_rows, table_of
from uar.storage.files import whole_file

ABOUT = ["collection", "stage", "template", "template_hash", "model"]
IDENTITY = ["key", "collection", "query_id", "doc_ids"]
ROWS = 262_144  # of a part that many became


def counted(folder: Path, wanted: pc.Expression) -> pa.Table:
    """By collection, stage, prompt and model: the number of records and of failures, tokens, seconds, first and last time."""
    columns = [*ABOUT, "outcome", "tokens_in", "tokens_out", "seconds", "time"]
    sums = [("records", "sum"), ("failures", "sum"), ("tokens_in", "sum"), ("tokens_out", "sum"), ("seconds", "sum")]
    sums += [("first", "min"), ("last", "max")]
    names = [*ABOUT, *(name for name, _ in sums)]
    found = []
    for table in _tables(folder, columns, wanted):
        failed = pc.cast(pc.not_equal(table["outcome"], str(Outcome.OK)), pa.int64())
        numbers = [pa.array(np.ones(len(table), np.int64)), failed]
        numbers += [table["tokens_in"], table["tokens_out"], table["seconds"], table["time"], table["time"]]
        single = pa.table([*(table[name] for name in ABOUT), *numbers], names=names)
        found.append(_summed(single, sums))
    return _summed(pa.concat_tables(found), sums).sort_by([(name, "ascending") for name in ABOUT]) if found else pa.table({})


def _summed(table: pa.Table, sums: list[tuple[str, str]]) -> pa.Table:
    grouped = table.group_by(ABOUT).aggregate(sums)
    return grouped.select([*ABOUT, *(f"{name}_{how}" for name, how in sums)]).rename_columns(
        [*ABOUT, *(name for name, _ in sums)]
    )


def export(folder: Path, wanted: pc.Expression, out: Path) -> int:
    """Write records as JSON, a line each, to a file that is there whole or not at all; return their number."""
    number = 0
    with whole_file(out) as beside, beside.open("w", encoding="utf-8") as file:
        for table in _tables(folder, NAMES, wanted):
            for batch in table.to_batches(max_chunksize=GROUP):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
            number += len(table)
    return number


def records_of(folder: Path, wanted: pc.Expression) -> list[dict[str, Any]]:
    """Records that are few enough to be held."""
    return [row for table in _tables(folder, NAMES, wanted) for row in table.to_pylist()]


def faults(folder: Path) -> tuple[int, list[str]]:
    """(records that can be read, what is wrong in words)."""
    number, found = 0, []
    for path in [*parts_of(folder), *journals_of(folder)]:
        try:
            if path.suffix == ".jsonl":
                number += sum(1 for _ in read_journal(path))
            else:
                read_keys(path)
                number += len(read_rows(path, NAMES, pc.scalar(True)))
        except (DataError, FileNotFoundError) as error:
            if isinstance(error, DataError):
                found.append(str(error))
    return number, found


def compact(folder: Path) -> tuple[int, int]:
    """Few parts in place of many, without failures that a later good reply replaces and errors that any later record does.
    Return the number of parts before and of records that were dropped. UserError while a run writes."""
    parts = _at_rest(folder)
    tables = [read_rows(part, [*IDENTITY, "outcome", "time"], pc.scalar(True)) for part in parts]
    if not tables:
        return 0, 0
    keep = _not_replaced(pa.concat_tables(tables))
    ends = np.cumsum([0, *map(len, tables)])
    masks = {part: keep[start:end] for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True)}
    if len(parts) > 1 or not keep.all():
        _rewrite(folder, masks)
    return len(parts), int((~keep).sum())


def delete(folder: Path, wanted: pc.Expression, dry_run: bool) -> int:
    """Remove the records that are `wanted`, or only count them; return their number. UserError while a run writes."""
    masks = {part: ~_are(part, wanted) for part in _at_rest(folder)}
    changed = {part: mask for part, mask in masks.items() if not mask.all()}
    if changed and not dry_run:
        _rewrite(folder, changed)
    return sum(int((~mask).sum()) for mask in changed.values())


def _tables(folder: Path, columns: list[str], wanted: pc.Expression) -> Iterator[pa.Table]:
    """Columns of the records that are wanted, of one file at a time."""
    for journal in journals_of(folder):  # before the parts, since one may become a part meanwhile
        table = table_of(list(read_journal(journal))).filter(wanted).select(columns)
        if len(table):
            yield table
    for part in parts_of(folder):
        with suppress(FileNotFoundError):  # gone since it was listed
            table = read_rows(part, columns, wanted)
            if len(table):
                yield table


def _at_rest(folder: Path) -> list[Path]:
    """The parts of a store that nobody writes to; UserError where somebody does."""
    adopt_journals(folder)
    busy = [*journals_of(folder), *sorted(folder.glob("*.opening"))]
    if busy:
        raise UserError(f"store={folder}: a run writes to it ({busy[0].name}); wait until it has ended")
    return parts_of(folder)


def _are(part: Path, wanted: pc.Expression) -> np.ndarray:
    """(records,) whether each one of a part is wanted."""
    read_keys(part)  # DataError where the file is no part
    found = ds.dataset(str(part), schema=SCHEMA, format="parquet").to_table(columns={"wanted": wanted})["wanted"]
    return pc.fill_null(found, False).to_numpy()


def _not_replaced(table: pa.Table) -> np.ndarray:
    """(records,) false for a failure where the same call has a good reply, and for an error where it has a later record."""
    keep = np.ones(len(table), bool)
    _, which, count = np.unique(half_keys(table["key"]), return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(count[which] > 1)
    calls: dict[tuple[Any, ...], list[tuple[float, int, str]]] = {}
    for at, row in zip(repeated.tolist(), table.take(repeated).to_pylist(), strict=True):
        identity = (*(row[name] for name in IDENTITY[:-1]), tuple(row["doc_ids"]))
        calls.setdefault(identity, []).append((row["time"], at, row["outcome"]))
    for records in calls.values():
        good = any(outcome == Outcome.OK for _, _, outcome in records)
        for when, at, outcome in records:
            later = outcome == Outcome.ERROR and (when, at) < max(records)[:2]
            keep[at] = outcome == Outcome.OK or not (good or later)
    return keep


def _rewrite(folder: Path, masks: Mapping[Path, np.ndarray]) -> None:
    """Put the rows of parts that their masks keep into new parts, and then remove those. A kill between the two leaves rows
    twice, which are read as one."""
    rows = _kept(masks)
    ahead = next(rows, None)
    while ahead is not None:
        name = f"{time.strftime('%Y%m%dT%H%M%S')}-kept-{secrets.token_hex(4)}.parquet"
        with whole_file(folder / name) as beside, pq.ParquetWriter(beside, SCHEMA, compression="zstd") as writer:
            written = 0
            while ahead is not None and written < ROWS:
                writer.write_table(ahead, row_group_size=GROUP)
                written += len(ahead)
                ahead = next(rows, None)
    for part in masks:
        part.unlink(missing_ok=True)


def _kept(masks: Mapping[Path, np.ndarray]) -> Iterator[pa.Table]:
    """Tables of GROUP rows, the last one of fewer."""
    held = SCHEMA.empty_table()
    for part, mask in masks.items():
        at = 0
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=NAMES)
                held = pa.concat_tables([held, table.filter(pa.array(mask[at : at + len(table)]))])
                at += len(table)
                while len(held) >= GROUP:
                    yield held.slice(0, GROUP)
                    held = held.slice(GROUP)
    if len(held):
        yield held
