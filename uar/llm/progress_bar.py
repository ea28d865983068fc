"""What a person sees of annotation while it runs: queries and calls done, the time left, the cost so far."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from uar.llm.costs.ledger import Prices
from uar.llm.engines.work import Work

log = logging.getLogger(__name__)
LOG_EVERY = 30.0  # seconds, where there is no terminal
DRAW_EVERY = 0.2


class Bar:
    """Call it with the work as it goes on."""

    def __init__(self, bar: Progress, task: Any, prices: Prices) -> None:
        self._bar, self._task, self._prices = bar, task, prices
        self._drawn = self._logged = self._began = time.monotonic()
        self._before = 0  # queries that the store answered before the first call was made
        self._asking = False

    def __call__(self, work: Work) -> None:
        now = time.monotonic()
        if now - self._drawn >= DRAW_EVERY:
            self.draw(work, now)

    def draw(self, work: Work, now: float) -> None:
        self._drawn = now
        total = work.progress.total
        if total.asked and not self._asking:
            self._asking, self._began, self._before = True, now, len(work.results)
        line = f"{total.asked:,} calls, {total.kept:,} from the store{self._left(now, work)}{self._cost(work)}"
        self._bar.update(self._task, completed=len(work.results), line=line)
        if not self._bar.console.is_terminal and now - self._logged > LOG_EVERY:
            self._logged = now
            log.info("%d of %d queries, %s", len(work.results), len(work.questions), line)

    def _left(self, now: float, work: Work) -> str:
        done = len(work.results) - self._before
        if not self._asking or done < 1:
            return ""
        seconds = (now - self._began) / done * (len(work.questions) - len(work.results))
        return f", {int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02} left"

    def _cost(self, work: Work) -> str:
        cost = self._prices.cost(work.progress.total.tokens, work.seconds)
        return "" if cost is None else f", {cost:.4g} {self._prices.currency}"


@contextmanager
def progress_bar(work: Work, prices: Prices, doing: str = "annotate") -> Iterator[Bar]:
    """A bar for as long as the block runs."""
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[line]}"))
    with Progress(*columns) as bar:
        drawn = Bar(bar, bar.add_task("", total=len(work.questions), line=""), prices)
        try:
            yield drawn
        finally:
            drawn.draw(work, time.monotonic())
