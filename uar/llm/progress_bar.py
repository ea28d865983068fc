"""What a person sees of asking while it goes on: questions and calls done, what the store answered, the cost so far."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uar.launch.bars import Bar, bar
from uar.llm.costs.ledger import Prices
from uar.llm.engines.work import Work

DRAW_EVERY = 0.2  # seconds


class _Asking:
    """Call it with the work as it goes on."""

    def __init__(self, shown: Bar, prices: Prices) -> None:
        self._shown, self._prices = shown, prices
        self._drawn = time.monotonic()
        self._asking = False

    def __call__(self, work: Work) -> None:
        now = time.monotonic()
        begins = not self._asking and work.progress.total.asked > 0
        if now - self._drawn >= DRAW_EVERY or begins:
            self._drawn = now
            self.draw(work)

    def draw(self, work: Work) -> None:
        total = work.progress.total
        cost = self._prices.cost(total.tokens, work.seconds, total.further)
        spent = "" if cost is None else f", {cost:.4g} {self._prices.currency}"
        self._shown.at(len(work.results), f"{total.asked:,} calls, {total.kept:,} from the store{spent}")
        if total.asked and not self._asking:
            self._asking = True
            self._shown.time_from_here()


@contextmanager
def progress_bar(work: Work, prices: Prices, doing: str = "annotate") -> Iterator[Callable[[Work], None]]:
    """A bar for as long as the block runs."""
    with bar(doing, len(work.questions), "questions") as shown:
        asking = _Asking(shown, prices)
        asking.draw(work)
        yield asking
