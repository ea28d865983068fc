"""One piece of asking: who asks, about which questions, of which models, with which store; and how far it is."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.llm.call import Asker, Questions
from uar.llm.chains import Chains
from uar.llm.costs.spending import LimitReached, Spending
from uar.llm.failing import stop_where_too_many_failed
from uar.llm.models import LLM, identity_of
from uar.llm.progress import Progress
from uar.llm.record import Outcome
from uar.llm.store.store import Store


@dataclass
class Work:
    """`llms`: plain configs of the models, the first one the run's own. `retry`: outcomes of replies in the store that are
    asked again, besides `error`. `spending`: what may be spent; None: anything. `results` (what each chain returned, by
    question), `failed` (questions whose chain returned nothing) and `progress` grow as it goes on, so that what was done is
    there when it stops. `rounds`: all questions in parts that are asked one after the other, where what comes of one decides
    whether the next is asked; `between` is called between two of them and may raise UserError. `serves`: what engines of this
    process say of the models that answer, by their names in records."""

    asker: Asker
    questions: Questions
    llms: Sequence[Mapping[str, Any]]
    store: Path
    max_failure_rate: float
    retry: tuple[str, ...] = ()
    spending: Spending | None = None
    rounds: Sequence[Questions] = ()
    between: Callable[[], None] = lambda: None
    results: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    serves: dict[str, dict[str, Any]] = field(default_factory=dict)
    _start: float | None = None
    _spent: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"max_failure_rate={self.max_failure_rate}: a share of the calls from 0 to 1 is needed")

    @property
    def seconds(self) -> float:
        """Of wall time since the asking began."""
        return self._spent if self._start is None else time.perf_counter() - self._start

    def results_of(self, query_ids: Iterable[str]) -> dict[str, Any]:
        """Those that are there, in the order of the questions."""
        return {q: self.results[q] for q in query_ids if q in self.results}

    def parts(self) -> Iterator[Questions]:
        """What is asked at once: the rounds, or all questions."""
        for number, questions in enumerate(self.rounds or [self.questions]):
            if number:
                self.between()
            yield questions

    @contextmanager
    def timed(self) -> Iterator[None]:
        self._start = time.perf_counter()
        try:
            yield
        finally:
            self._spent, self._start = self.seconds, None

    @property
    def models(self) -> list[str]:
        """The names in records of the models that are asked."""
        return [identity_of(llm) for llm in self.llms] if self.asker.needs_llm else []


Report = Callable[[Work], None]  # called with the work as it goes on


def ask(work: Work, store: Store, llms: Sequence[LLM], report: Report) -> None:
    """Run the chains of all questions, in their order; UserError where more than `max_failure_rate` of the calls of a round
    and those before it failed."""

    def on_call(progress: Progress) -> None:
        report(work)

    rate = work.max_failure_rate
    for questions in work.parts():
        chains = Chains(work.asker, store, questions.name, llms, rate, on_call, work.progress, work.retry, work.spending)
        try:
            for question_id, result in chains.run(questions):
                work.results[question_id] = result
                report(work)
        except LimitReached as reached:
            raise UserError(
                f"{reached}. {len(work.results)} of {len(work.questions)} questions are done, and what was answered is kept: "
                "the same command goes on from there and may spend as much again; dry_run=true tells what all would cost"
            ) from reached
        finally:
            work.failed += chains.failed
        stop_where_too_many_failed(work.progress, rate)


def outcomes_to_retry(names: Sequence[str]) -> tuple[str, ...]:
    """The option `retry_failures`; UserError where it names no failure."""
    known = [outcome.value for outcome in Outcome if outcome != Outcome.OK]
    given = [names] if isinstance(names, str) else list(names)
    odd = next((name for name in given if name not in known), None)
    if odd is not None:
        raise UserError(f"retry_failures names {odd!r}; allowed: {', '.join(known)}, such as 'retry_failures=[unparsable]'")
    return tuple(given)


def part_of(query_ids: Sequence[str], shard: str | None) -> list[str]:
    """The queries of one of several shards: `2/8` is every eighth from the second on; null all of them."""
    if shard is None:
        return list(query_ids)
    number, _, of = str(shard).partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(f"shard={shard!r}: I/N with 1 <= I <= N is needed, such as shard=1/8 ... shard=8/8")
    return list(query_ids)[int(number) - 1 :: int(of)]
