"""Bars of long work: drawn on a terminal, a line now and then elsewhere; what is counted, and the time left."""

import logging
import os
import pty
import sys
import time
from pathlib import Path

import pytest

from uar.collections.token_ids import tokenise
from uar.launch import bars
from uar.launch.bars import Bar, bar, counted
from uar.llm.costs.ledger import Prices
from uar.llm.progress import Progress
from uar.llm.progress_bar import progress_bar


class Work:
    """What a bar is told of asking."""

    def __init__(self, results: int, asked: int, kept: int) -> None:
        self.results, self.questions, self.seconds = dict.fromkeys(range(results)), range(10), 1.0
        self.progress = Progress()
        self.progress.stage("relsel").asked, self.progress.stage("relsel").kept = asked, kept


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "FIRST_LINE", 0.01)
    monkeypatch.setattr(bars, "DRAWN_AFTER", 0.0)


def wait_for(text: str, caplog: pytest.LogCaptureFixture) -> None:
    while text not in caplog.text:
        time.sleep(0.01)


def test_without_a_terminal_a_line_is_logged_now_and_then(now: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with bar("encode passages", 4_000, "passages") as shown:
        shown.at(1_000)
        wait_for("encode passages: 1,000 of 4,000 passages, 0:00:0", caplog)
        with bar("tokenise", 10, "texts") as inner:  # work within other work has no bar of its own
            inner.at(5)
            wait_for("0:00:0", caplog)
        shown.at(4_000)
        wait_for("encode passages: 4,000 of 4,000 passages\n", caplog)
    assert "tokenise" not in caplog.text


def test_on_a_terminal_the_bar_is_drawn_and_removed(now: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("TERM", "xterm")
        with bar("encode passages", 40, "passages") as shown:
            shown.at(10)
            seen = b""
            while b"10 of 40 passages" not in seen:
                seen += os.read(ours, 1_000)
        monkeypatch.undo()
    assert "━" in seen.decode(errors="ignore")
    assert b"\x1b[2K" in os.read(ours, 10_000)  # the line is erased
    os.close(ours)


def test_other_processes_of_a_run_say_nothing(
    now: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with bar("encode passages", 4, "passages") as shown:
        shown.advance()
        time.sleep(0.05)
    assert shown.done == 1 and caplog.text == ""


def test_the_time_left_is_that_of_what_was_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 10.0, 20.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    shown = Bar("annotate", 100, "questions")
    shown.at(90)  # which the store answered
    shown.time_from_here()
    shown.at(92)
    assert shown.line() == "92 of 100 questions, 0:00:40 left"


def test_items_are_counted_when_they_were_worked_on() -> None:
    shown = Bar("read", None, "questions")
    for number, _ in enumerate(counted("abc", shown)):
        assert shown.done == number
    assert shown.line() == "3 questions"


def test_a_bar_of_asking_tells_what_the_store_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uar.llm.progress_bar.DRAW_EVERY", 0.0)
    drawn: list[Bar] = []
    monkeypatch.setattr(Bar, "at", lambda self, done, more=None: drawn.append((done, more)))
    with progress_bar(Work(2, 0, 2), Prices()) as report:
        report(Work(5, 3, 2))
    assert drawn == [(2, "0 calls, 2 from the store"), (5, "3 calls, 2 from the store")]


def test_tokenising_counts_its_texts(own_cache: Path, tokenizer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Bar] = []
    monkeypatch.setattr(Bar, "advance", lambda self, by=1: seen.append((self.doing, self.total, by)))
    tokenise(["one", "two", "three"], "content", tokenizer, 8, number=3)
    assert seen == [("tokenise", 3, 3)]
