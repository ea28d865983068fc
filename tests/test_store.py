"""The annotation store under kills, several writers and foreign files."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records import MODEL, WRITER, everything, find, record, rows

from uar.errors import DataError, UserError
from uar.llm.record import Generate, Outcome
from uar.llm.store import store as store_module
from uar.llm.store.journal import adopt_new_journals, journals_of
from uar.llm.store.parts import SCHEMA
from uar.llm.store.store import Store


@pytest.fixture
def writer(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a process that appends records `start` to `stop` and prints the number of each that is kept."""

    def start(start: int = 0, stop: int = 1_000_000, part: int = 50) -> subprocess.Popen[str]:
        tests = str(Path(__file__).parent)
        program = WRITER.format(tests=tests, folder=str(tmp_path), start=start, stop=stop, part=part)
        return subprocess.Popen([sys.executable, "-B", "-c", program], stdout=subprocess.PIPE, text=True)

    return start


def test_a_record_is_found_before_and_after_closing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = record(1)
    store.append(kept)
    assert find(store, kept.key) == kept
    store.close()
    assert find(store, kept.key) == kept
    assert find(Store(tmp_path), kept.key) == kept
    assert find(Store(tmp_path), record(2).key) is None
    assert everything(Store(tmp_path)) == [kept]


def test_a_whole_temperature_is_the_call_of_its_decimal() -> None:
    keys = [Generate((("user", "Hi."),), 8, temperature).key(MODEL) for temperature in (0, 0.0, 1, 1.0)]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_reading_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "annotations")
    assert find(store, record(1).key) is None
    store.close()
    assert everything(store) == []
    assert not (tmp_path / "annotations").exists()


def test_a_closed_store_is_parquet_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(3):
        store.append(record(number))
    store.close()
    (part,) = tmp_path.iterdir()
    assert part.suffix == ".parquet"
    assert pq.read_schema(part).equals(SCHEMA)
    assert rows(tmp_path) == ["q0", "q1", "q2"]


def test_a_full_journal_becomes_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PART", 4)
    store = Store(tmp_path)
    for number in range(10):
        store.append(record(number))
    assert len(list(tmp_path.glob("*.parquet"))) == 2 and len(list(tmp_path.glob("*.jsonl"))) == 1
    store.close()
    assert sorted(len(pq.read_table(p)) for p in tmp_path.glob("*.parquet")) == [2, 4, 4]
    assert all(find(store, record(n).key) for n in range(10))


def test_a_failed_write_of_a_part_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.append(record(1))

    def half_then_full(table: pa.Table, where: Path, **options: object) -> None:
        where.write_bytes(b"PAR1 half of a part")
        raise OSError(28, "No space left on device", str(where))

    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", half_then_full)
        with pytest.raises(OSError, match="No space left"):
            store.close()
    assert [p.suffix for p in tmp_path.iterdir()] == [".jsonl"]
    del store
    assert everything(Store(tmp_path)) == [record(1)]


LITTLE_SPACE = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
"""


def test_a_full_disk_keeps_what_was_appended(tmp_path: Path) -> None:
    program = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path), start=0, stop=1000, part=4096)
    done = subprocess.run([sys.executable, "-B", "-c", LITTLE_SPACE + program], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    told = [f"q{n}" for n in done.stdout.split()]
    assert len(told) > 3
    assert [r.query_id for r in everything(Store(tmp_path))] == told


@pytest.mark.parametrize("part", [4096, 7])
def test_a_killed_writer_loses_and_doubles_nothing(
    tmp_path: Path, writer: Callable[..., subprocess.Popen[str]], part: int
) -> None:
    process = writer(part=part)
    told = [process.stdout.readline() for _ in range(40)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.readlines()
    assert process.wait() == -signal.SIGKILL
    told = [int(line) for line in told if line.endswith("\n")]
    store = Store(tmp_path)
    assert all(find(store, record(n).key) == record(n) for n in told)
    assert not list(tmp_path.glob("*.jsonl"))
    assert Counter(rows(tmp_path)) == Counter({f"q{n}": 1 for n in range(len(rows(tmp_path)))})
    assert len(told) <= len(rows(tmp_path)) <= len(told) + 1
    assert len(everything(store)) == len(rows(tmp_path))


def test_half_a_line_of_a_killed_writer_is_passed_over(tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]) -> None:
    process = writer()
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    journal = next(tmp_path.glob("*.jsonl"))
    whole = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    half = record(len(whole)).to_json().encode()
    journal.write_bytes(b"".join(whole) + half[: half.index("ż".encode()) + 1])
    assert [r.query_id for r in everything(Store(tmp_path))] == [f"q{n}" for n in range(len(whole))]


def test_two_writers_at_once_keep_everything_once(tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]) -> None:
    processes = [writer(0, 300), writer(300, 600)]
    while any(p.poll() is None for p in processes):
        Store(tmp_path)  # opens, adopts and indexes while they write
        for process in processes:
            process.stdout.readline()
    assert [p.returncode for p in processes] == [0, 0]
    assert Counter(rows(tmp_path)) == Counter({f"q{n}": 1 for n in range(600)})
    assert [r.query_id for r in everything(Store(tmp_path))] == [f"q{n}" for n in range(600)]


def test_journals_are_waited_for_while_their_writers_end(tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]) -> None:
    ours = Store(tmp_path)
    ours.append(record(1_000_000))
    known = journals_of(tmp_path)
    process = writer(part=1_000_000)
    process.stdout.readline()
    threading.Timer(0.5, process.kill).start()
    adopt_new_journals(tmp_path, known, seconds=600)
    assert process.wait() == -signal.SIGKILL
    assert journals_of(tmp_path) == known and rows(tmp_path)


def test_the_journal_of_a_live_writer_is_not_adopted(tmp_path: Path) -> None:
    alive = Store(tmp_path)
    alive.append(record(1))
    other = Store(tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".jsonl"]
    assert everything(other) == [record(1)]
    alive.append(record(2))
    alive.close()
    assert rows(tmp_path) == ["q1", "q2"]


def test_a_journal_is_never_seen_before_its_writer_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def someone_opens_the_store_first(file: object, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        Store(tmp_path)
        lock(file, operation)

    store = Store(tmp_path)
    monkeypatch.setattr(fcntl, "flock", someone_opens_the_store_first)
    store.append(record(1))
    assert fcntl.flock is lock
    store.close()
    assert everything(Store(tmp_path)) == [record(1)]


def test_the_newest_good_record_of_a_call_is_found_else_the_newest_failure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    told = [("prose", "unparsable"), ("500", "error"), ("[]", "ok"), ("[1]", "ok"), ("[1]", "ok"), ("503", "error")]
    found = []
    for at, (output, outcome) in enumerate(told):
        store.append(record(1, query_id=f"q{at}", output=output, outcome=outcome, time=float(at)))
        found.append(find(store, record(1).key).query_id)
    assert found == ["q0", "q1", "q2", "q3", "q3", "q3"]
    assert find(store, record(1).key, lambda kept: "ok" if kept.output == "prose" else "unparsable").query_id == "q0"


def test_a_call_that_failed_first_is_read_as_it_ended(tmp_path: Path) -> None:
    good = record(1, time=2.0)
    for kept in (replace(good, outcome=Outcome.ERROR, output="500", time=1.0), good):
        store = Store(tmp_path)
        store.append(kept)
        store.close()
    assert find(Store(tmp_path), good.key) == good
    assert everything(Store(tmp_path)) == [good]


def test_one_text_under_two_query_ids_is_kept_for_both(tmp_path: Path) -> None:
    store = Store(tmp_path)
    twins = [record(1), replace(record(1), query_id="twin", time=2.0)]
    for twin in twins:
        store.append(twin)
    store.close()
    assert everything(Store(tmp_path)) == twins


def test_records_are_those_of_the_collection_stage_and_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    wanted = record(1)
    store.append(wanted)
    for name, value in {"collection": "mini.dev", "stage": "utilsel", "model": "other"}.items():
        store.append(replace(wanted, **{name: value}, query_id=name))
    assert everything(store) == [wanted]
    store.close()
    assert everything(Store(tmp_path)) == [wanted]


def test_shipped_records_are_read_and_never_touched(tmp_path: Path) -> None:
    shipped = Store(tmp_path / "shipped")
    shipped.append(record(1))
    shipped.close()
    before = {p: p.read_bytes() for p in (tmp_path / "shipped").iterdir()}
    store = Store(tmp_path / "own", also=[tmp_path / "shipped", tmp_path / "missing"])
    assert find(store, record(1).key) == record(1)
    store.append(record(2))
    store.close()
    assert everything(store) == [record(1), record(2)]
    assert rows(tmp_path / "own") == ["q2"]
    assert {p: p.read_bytes() for p in (tmp_path / "shipped").iterdir()} == before
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("content", ["another table", "no parquet"])
def test_a_foreign_parquet_file_is_one_line_with_its_name(tmp_path: Path, content: str) -> None:
    foreign = tmp_path / "foreign.parquet"
    if content == "another table":
        pq.write_table(pa.table({"name": ["a"], "size": [1]}), foreign)
    else:
        foreign.write_text("nothing of the kind")
    with pytest.raises(DataError) as error:
        everything(Store(tmp_path))
    assert str(error.value).startswith(str(foreign))
    assert "\n" not in str(error.value)


def test_half_an_emoji_in_an_output_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record(1, output=json.loads(r'"yes \ud83d"')))
    store.append(record(2))
    store.close()
    assert [r.query_id for r in everything(Store(tmp_path))] == ["q1", "q2"]
    assert everything(Store(tmp_path))[0].output.startswith("yes ")


def test_a_writer_killed_between_its_part_and_the_end_of_its_journal_doubles_nothing(
    tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]
) -> None:
    process = writer()
    told = [process.stdout.readline() for _ in range(10)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (journal,) = tmp_path.iterdir()
    content = journal.read_bytes()
    Store(tmp_path)
    journal.write_bytes(content)
    assert len(everything(Store(tmp_path))) == len(rows(tmp_path)) >= len(told)
    assert [p.name for p in tmp_path.iterdir()] == [f"{journal.stem}.parquet"]


def test_half_a_part_of_a_killed_writer_is_removed(tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]) -> None:
    process = writer()
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (journal,) = tmp_path.iterdir()
    (tmp_path / f".{journal.stem}.parquet.abcd").write_bytes(b"PAR1 half of a part")
    Store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f"{journal.stem}.parquet"]


def test_a_journal_that_its_writer_never_began_is_removed_and_one_that_is_opened_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed.opening").touch()
    with (tmp_path / "alive.opening").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        Store(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["alive.opening"]
    lock = fcntl.flock

    def late(handle: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not list(tmp_path.glob("*.jsonl")):
            monkeypatch.setattr(fcntl, "flock", lock)
            Store(tmp_path)  # adopts while the journal is there and its writer has no lock yet
        lock(handle, how)

    store = Store(tmp_path)
    monkeypatch.setattr(fcntl, "flock", late)
    store.append(record(1))
    store.close()
    assert [r.query_id for r in everything(Store(tmp_path))] == ["q1"]
    assert {p.suffix for p in tmp_path.iterdir()} == {".parquet"}


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.ENOLCK])
def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "left.jsonl").write_text(record(1).to_json() + "\n")
    monkeypatch.setattr(fcntl, "flock", flock)
    store = Store(tmp_path)
    assert find(store, record(1).key) == record(1)  # it can be read, and nobody takes the journal away
    with pytest.raises(UserError, match=f"store={tmp_path}: its file system has no file locks") as error:
        store.append(record(2))
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["left.jsonl"]


def test_a_journal_is_opened_for_writing_to_be_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def as_nfs_has_it(file: Any, operation: int) -> None:
        handle = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs_has_it)
    (tmp_path / "left.jsonl").write_text(record(1).to_json() + "\n")
    Store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["left.parquet"]
