"""What the store finds, whatever it holds in memory, and what it makes of damaged files."""

import os
import random
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from records import everything, find, record, rows

from uar.errors import DataError
from uar.llm.record import Outcome
from uar.llm.store import key_index as index
from uar.llm.store import parts
from uar.llm.store import store as store_module
from uar.llm.store.store import Store


def filled(folder: Path, number: int) -> Store:
    store = Store(folder)
    for n in range(number):
        store.append(record(n))
    return store


def test_what_was_flushed_is_found(tmp_path: Path, small: None) -> None:
    store = filled(tmp_path, 100)
    for reader in (store, Store(tmp_path)):  # 96 records in parts, 4 in the journal of a living writer
        assert [find(reader, record(n).key) for n in range(100)] == [record(n) for n in range(100)]
        assert find(reader, record(100).key) is None


@pytest.mark.parametrize("closed", [True, False])
def test_several_records_of_a_key_are_kept_and_a_reply_goes_before_an_error(tmp_path: Path, closed: bool) -> None:
    error, first, twin = record(1, outcome=Outcome.ERROR), record(1, query_id="b", time=2.0), record(1, query_id="c", time=3.0)
    store = Store(tmp_path)
    store.append(error)
    assert find(store, error.key) == error
    for kept in (twin, first, record(2)):
        store.append(kept)
    if closed:
        store.close()
    assert find(store, error.key) == first


def test_a_key_is_compared_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    alike = [record(n, key=f"{'a' * 16}{n:016x}") for n in range(3)]
    for kept in alike:
        store.append(kept)
    store.close()
    assert [find(store, kept.key) for kept in alike] == alike
    assert find(store, f"{'a' * 16}{3:016x}") is None


def test_few_decoded_rows_are_held_and_every_lookup_is_right(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 160).close()
    decoded: list[tuple[Path, int]] = []

    def counting(part: Path, group: int) -> parts.Columns:
        decoded.append((part, group))
        return parts.read_group(part, group)

    monkeypatch.setattr(index, "read_group", counting)
    numbers = random.Random(0).choices(range(160), k=800)

    def looked_up() -> int:
        decoded.clear()
        store = Store(tmp_path)
        assert [find(store, record(n).key) for n in numbers] == [record(n) for n in numbers]
        return len(decoded)

    assert looked_up() == len(set(decoded)) == 40  # 10 parts of 4 row groups, each decoded once
    one = sum(column.get_total_buffer_size() for column in parts.read_group(*decoded[0]))
    monkeypatch.setattr(index, "DECODED_BYTES", 4 * one)
    assert 650 < looked_up() < 780  # about one lookup in ten finds its row group still there
    monkeypatch.setattr(index, "DECODED_BYTES", 0)
    groups = [(n // 16, n % 16 // 5) for n in numbers]
    assert looked_up() == 1 + sum(before != after for before, after in pairwise(groups))  # never more than one is held
    monkeypatch.setattr(index, "DECODED_BYTES", 4 * one)
    numbers = [n for other in range(5, 160, 5) for n in (0, other)]
    assert looked_up() == len(set(decoded))  # what is looked into again and again stays


def test_a_lookup_makes_one_record_of_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 50).close()
    made: list[int] = []
    monkeypatch.setattr(index, "record_at", lambda columns, row: made.append(row) or parts.record_at(columns, row))
    assert find(Store(tmp_path), record(7).key) == record(7)
    assert made == [7]


def test_a_writer_stays_small_however_much_it_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PART", 100)
    store = Store(tmp_path)

    def grown(start: int, stop: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(start, stop):
            store.append(record(number, output="x" * 1_000))
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        grown(0, 1_000)  # modules and buffers
        assert grown(1_000, 5_000) < 4_000 * 100  # bytes; a record that stayed would take some 2,000
    finally:
        tracemalloc.stop()
    assert all(find(store, record(n).key).query_id == f"q{n}" for n in range(0, 5_000, 97))


def test_a_writer_finds_what_others_kept_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PART", 4)
    early, late = Store(tmp_path), Store(tmp_path)
    for number in range(4):
        late.append(record(number))
    (tmp_path / "foreign.parquet").write_text("it appeared while they worked")
    for number in range(4, 8):
        early.append(record(number))
    assert [find(early, record(n).key) for n in range(8)] == [record(n) for n in range(8)]


def test_a_part_that_vanishes_is_no_longer_found(tmp_path: Path, small: None, caplog: pytest.LogCaptureFixture) -> None:
    store = filled(tmp_path, 48)
    gone, *left = sorted(tmp_path.glob("*.parquet"))
    lost = {q for q in pq.read_table(gone)["query_id"].to_pylist()}
    gone.unlink()
    found = {f"q{n}" for n in range(48) if find(store, record(n).key)}
    assert found == {f"q{n}" for n in range(48)} - lost and len(lost) == 16 and len(left) == 2
    assert gone.name in caplog.text


@pytest.mark.parametrize("reading", ["opening", "records"])
def test_a_part_that_vanishes_while_it_is_read_is_passed_over(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    filled(tmp_path, 48).close()
    store = Store(tmp_path)
    list_parts, (gone, *_) = parts.parts_of, sorted(tmp_path.glob("*.parquet"))

    def listed_and_gone(folder: Path) -> list[Path]:
        listed = list_parts(folder)
        gone.unlink(missing_ok=True)
        return listed

    monkeypatch.setattr(store_module, "parts_of", listed_and_gone)
    monkeypatch.setattr("uar.llm.store.record_selection.parts_of", listed_and_gone)
    if reading == "opening":
        opened = Store(tmp_path)
        assert sum(find(opened, record(n).key) is not None for n in range(48)) == 32
    else:
        assert len(everything(store)) == 32


def test_records_are_given_once_oldest_first(tmp_path: Path, small: None) -> None:
    rng = random.Random(3)
    store = Store(tmp_path)
    for time in rng.sample(range(1_000), 150):  # few keys, queries and pools, so that many are kept again
        store.append(
            record(
                rng.randrange(4),
                query_id=f"q{rng.randrange(2)}",
                doc_ids=tuple(f"d{n}" for n in range(rng.randrange(3))),
                outcome=rng.choice([Outcome.ERROR, Outcome.ERROR, Outcome.OK]),
                time=float(time),
            )
        )
    found = everything(store)
    assert len({r.identity() for r in found}) == len(found) == 24
    assert [r.time for r in found] == sorted(r.time for r in found)


def test_an_empty_store_has_no_records(tmp_path: Path) -> None:
    assert everything(Store(tmp_path / "none")) == []


def test_parts_that_other_writers_laid_out_are_read(tmp_path: Path) -> None:
    kept = [record(n, query_id=f"q{n % 3}") for n in range(10)]
    table = parts.table_of(kept)
    pq.write_table(table, tmp_path / "one-group.parquet", compression="snappy")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    store = Store(tmp_path)
    assert [find(store, r.key) for r in kept] == kept == everything(store)


@pytest.mark.parametrize("damage", ["footer", "keys", "page"])
def test_a_damaged_part_is_one_line_with_its_name(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, 40).close()
    (part,) = tmp_path.iterdir()
    if damage == "keys":
        pq.write_table(parts.table_of([record(1, key="no key"), record(2)]), part)
    else:
        content = bytearray(part.read_bytes())
        at = len(content) - 200 if damage == "footer" else 40
        content[at : at + 40] = b"\xff" * 40
        part.write_bytes(content)
    with pytest.raises(DataError) as error:
        Store(tmp_path)
    assert str(error.value).startswith(str(part)) and "\n" not in str(error.value)


def test_a_foreign_journal_is_told_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "notes.jsonl"
    foreign.write_text('{"a": 1}\n[2]\n')
    with pytest.raises(DataError, match=f"^{foreign}:1: "):
        Store(tmp_path)
    assert foreign.read_text() == '{"a": 1}\n[2]\n'


def test_half_a_line_is_taken_back_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.append(record(1))
    write = os.write

    def half(handle: int, line: bytes) -> int:
        if len(line) < 100:
            raise OSError(28, "No space left on device")
        return write(handle, line[:-50])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space left.*jsonl"):
            store.append(record(2))
    store.append(record(3))
    assert [r.query_id for r in everything(Store(tmp_path))] == ["q1", "q3"]
    store.close()
    assert rows(tmp_path) == ["q1", "q3"]
