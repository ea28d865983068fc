"""What `python -m uar.store` shows of a store, and how it keeps it in order."""

import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ok
from records import find, record

from uar.annotation.store_run import ACTIONS
from uar.errors import UserError
from uar.llm.record import Outcome, Record
from uar.llm.store import store as store_module
from uar.llm.store import upkeep
from uar.llm.store.parts import parts_of
from uar.llm.store.rule import rule
from uar.llm.store.store import Store

Command = Callable[..., subprocess.CompletedProcess[str]]


def filled(folder: Path, *parts: list[Record]) -> Path:
    """A store with one part for each list of records."""
    for records in parts:
        store = Store(folder)
        for one in records:
            store.append(one)
        store.close()
    return folder


def of(number: int, outcome: Outcome, time: float) -> Record:
    return replace(record(number), outcome=outcome, output=f"{outcome} at {time}", time=time)


def left(folder: Path) -> list[Record]:
    everything = rule({})
    return sorted((Record.from_row(row) for row in upkeep.records_of(folder, everything)), key=lambda r: (r.key, r.time))


def test_many_parts_become_one_that_answers_alike(tmp_path: Path):
    failed = [of(1, Outcome.ERROR, 1.0), of(2, Outcome.UNPARSABLE, 1.0), of(3, Outcome.ERROR, 1.0), of(4, Outcome.ERROR, 1.0)]
    later = [of(1, Outcome.OK, 2.0), of(3, Outcome.ERROR, 2.0), of(5, Outcome.OK, 2.0), of(4, Outcome.TRUNCATED, 2.0)]
    last = [of(5, Outcome.OK, 3.0), of(2, Outcome.EMPTY, 3.0)]
    folder = filled(tmp_path, failed, later, last)
    store = Store(folder)
    answers = {r.key: find(store, r.key) for r in (*failed, *later)}
    assert upkeep.compact(folder) == (3, 3)
    assert len(parts_of(folder)) == 1
    wanted = [failed[1], last[1], *later, last[0]]  # a good reply stays beside another, a failure beside another failure
    assert left(folder) == sorted(wanted, key=lambda r: (r.key, r.time))
    store = Store(folder)
    assert {key: find(store, key) for key in answers} == answers
    assert upkeep.compact(folder) == (1, 0) and len(parts_of(folder)) == 1


def test_large_stores_become_parts_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "ROWS", 20)
    monkeypatch.setattr(upkeep, "GROUP", 8)
    records = [record(number) for number in range(50)]
    folder = filled(tmp_path, *(records[start : start + 5] for start in range(0, 50, 5)))
    assert upkeep.compact(folder) == (10, 0) and len(parts_of(folder)) == 3
    assert left(folder) == sorted(records, key=lambda r: r.key)


def test_a_kill_between_new_parts_and_old_ones_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = filled(tmp_path, [record(1), record(2)], [record(3)])
    before = left(folder)

    def killed(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            upkeep.compact(folder)
    for half in folder.glob(".*"):
        half.unlink()
    assert {r.key for r in Store(folder).records(before[0].collection, [before[0].stage], before[0].model)} == {
        r.key for r in before
    }
    upkeep.compact(folder)
    assert {r.key for r in left(folder)} == {r.key for r in before}


def test_records_go_by_a_rule_and_no_others(tmp_path: Path):
    good, bad = [of(n, Outcome.OK, float(n)) for n in range(1, 4)], [of(n, Outcome.ERROR, float(n)) for n in range(4, 7)]
    folder = filled(tmp_path, [*good[:2], *bad[:2]], [good[2], bad[2]], [record(9)])
    (untouched,) = (part for part in parts_of(folder) if pq.read_metadata(part).num_rows == 1)
    wanted = rule({"outcome": "error", "before": "1970-01-01T00:00:05.5", "model": "*"})
    assert upkeep.delete(folder, wanted, dry_run=True) == 2 and len(left(folder)) == 7
    assert upkeep.delete(folder, wanted, dry_run=False) == 2
    assert {r.key for r in left(folder)} == {r.key for r in [*good, bad[2], record(9)]}
    assert untouched in parts_of(folder)
    assert upkeep.delete(folder, rule({"model": "no such"}), dry_run=False) == 0
    assert upkeep.delete(folder, rule({"stage": "*"}), dry_run=False) == 5 and parts_of(folder) == []


def test_nothing_is_moved_while_a_run_writes(tmp_path: Path):
    folder = filled(tmp_path, [record(1)])
    writer = Store(folder)
    writer.append(record(2))
    for work in (lambda: upkeep.compact(folder), lambda: upkeep.delete(folder, rule({"outcome": "ok"}), dry_run=False)):
        with pytest.raises(UserError, match="a run writes to it .*; wait until it has ended"):
            work()
    assert upkeep.counted(folder, rule({}))["records"].to_pylist() == [2]
    writer.close()
    assert upkeep.compact(folder) == (2, 0)


def test_rules_that_are_none_are_refused():
    for where, told in (
        ({"outcome": "bad"}, "where.outcome='bad'; allowed: ok, empty"),
        ({"before": "yesterday"}, "where.before='yesterday': no date; write it as 2026-11-30"),
        ({"question": "q1"}, "where.question is not known; allowed: collection, model"),
    ):
        with pytest.raises(UserError, match=told):
            rule(where)


def test_the_command_counts_exports_checks_and_deletes(tmp_path: Path, command: Command, fails: Callable[..., str]):
    folder = filled(tmp_path / "store", [record(1), of(2, Outcome.ERROR, 5.0)], [record(3)])
    shown = ok(command("uar.store", "store=store", "action=records"))
    assert record(1).collection in shown and record(1).model in shown
    ok(command("uar.store", "store=store", "action=export", "out=all.jsonl", "where.outcome=ok"))
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines} == {record(1).key, record(3).key}
    assert "3 records, all of which can be read" in ok(command("uar.store", "store=store", "action=verify"))
    assert "1 records would be deleted" in ok(command("uar.store", "store=store", "action=delete", "where.outcome=error"))
    assert len(left(folder)) == 3
    ok(command("uar.store", "store=store", "action=delete", "where.outcome=error", "dry_run=false"))
    assert len(left(folder)) == 2
    (folder / "x.parquet").write_text("no part")
    said = fails("uar.store", "store=store", "action=verify")
    assert "1 files cannot be read, 2 records can" in said
    for words, told in (
        (["action=tidy"], f"action=tidy; allowed: {', '.join(ACTIONS)}"),
        (["action=delete"], "action=delete needs a rule"),
        (["action=export"], "action=export needs out="),
        (["action=why", "collection=mini:train"], "action=why needs question="),
        (["action=verify", "store=nowhere"], "store=nowhere: nothing is kept there"),
        (["store=nowhere"], "store=nowhere: nothing is kept there"),
    ):
        assert told in fails("uar.store", "store=store", *words)


def test_a_store_of_very_many_parts_names_the_command_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    few, many = (
        filled(tmp_path / name, *([of(n, Outcome.OK, 1.0)] for n in range(parts))) for name, parts in (("a", 3), ("b", 4))
    )
    store_module._tell_of_parts.cache_clear()
    monkeypatch.setattr(store_module, "MANY", 3)
    for folder in (few, many, many):
        Store(folder)
    (line,) = [r.getMessage() for r in caplog.records if "parts" in r.getMessage()]
    assert f"{many} has 4 parts" in line and line.endswith(f"python -m uar.store store={many} action=compact")
