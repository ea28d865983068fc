"""The bar of any long piece of work: how much is done of how much, the time left, and what else there is to tell.

It is drawn where stderr is a terminal; elsewhere a line goes to the log now and then. Work that ends within a second shows
nothing, and so does work within other work that has a bar.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from uar.launch.side_by_side import which_process

log = logging.getLogger(__name__)
DRAWN_AFTER, DRAWN_EVERY = 1.0, 0.1  # seconds
FIRST_LINE, LONGEST_WAIT = 30.0, 600.0  # seconds between two lines of a log, which grow twofold
Item = TypeVar("Item")
_running = threading.Lock()  # held by the work whose bar is shown


class Bar:
    """`doing`: a verb and what is worked on; `total`: None where nobody knows; `unit`: what is counted."""

    def __init__(self, doing: str, total: int | None, unit: str) -> None:
        self.doing, self.total, self.unit = doing, total, unit
        self.done, self.more = 0, ""
        self._timed_from, self._began = 0, time.monotonic()

    def advance(self, by: int = 1) -> None:
        self.at(self.done + by)

    def at(self, done: int, more: str | None = None) -> None:
        """So much is done; `more`: what stands behind it from now on."""
        self.done, self.more = done, self.more if more is None else more

    def time_from_here(self) -> None:
        """What was done so far took no time that tells of the rest, such as what was read from a store."""
        self._timed_from, self._began = self.done, time.monotonic()

    def line(self) -> str:
        counted = f"{self.done:,} {self.unit}" if self.total is None else f"{self.done:,} of {self.total:,} {self.unit}"
        return ", ".join(filter(None, (counted, self._left(), self.more)))

    def _left(self) -> str:
        counted = self.done - self._timed_from
        if not self.total or counted < 1 or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self._began) / counted * (self.total - self.done)
        return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02} left"

    def draw_until(self, ended: threading.Event) -> None:
        """On the terminal, from a second after the beginning on."""
        if ended.wait(DRAWN_AFTER):
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
        console = Console(stderr=True)
        redirected = sys.stdout.isatty()
        with Progress(*columns, console=console, transient=True, auto_refresh=False, redirect_stdout=redirected) as bar:
            task = bar.add_task(self.doing, total=self.total, line="")
            while True:  # the work never waits for its bar
                bar.update(task, completed=self.done, line=self.line(), refresh=True)
                if ended.wait(DRAWN_EVERY):
                    break

    def log_until(self, ended: threading.Event) -> None:
        wait = FIRST_LINE
        while not ended.wait(wait):
            log.info("%s: %s", self.doing, self.line())
            wait = min(2 * wait, LONGEST_WAIT)


@contextmanager
def bar(doing: str, total: int | None, unit: str) -> Iterator[Bar]:
    """Shown for as long as the block runs, by the first process of a run alone. Child processes, such as jobs of a sweep
    beside each other, have one terminal for all: they draw none."""
    shown = Bar(doing, total, unit)
    if which_process() > 0 or not _running.acquire(blocking=False):
        yield shown
        return
    ended = threading.Event()
    draws = sys.stderr.isatty() and parent_process() is None
    watch = threading.Thread(target=shown.draw_until if draws else shown.log_until, args=(ended,), daemon=True)
    watch.start()
    try:
        yield shown
    finally:
        ended.set()
        watch.join()
        _running.release()


def counted(items: Iterable[Item], shown: Bar) -> Iterator[Item]:
    """The items, each counted by the bar when it was worked on."""
    for item in items:
        yield item
        shown.advance()
