"""One piece of annotation: questions and their pools, the annotator, the models, the store; and how it is done here."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra

from uar.annotation.annotators import Annotator, Judged, Question
from uar.annotation.replay import question_of
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.chains import Chains, Progress
from uar.llm.failing import stop_where_too_many_failed
from uar.llm.models import LLM, Engine, identity_of
from uar.llm.record import Outcome
from uar.llm.store.store import Store


@dataclass
class Work:
    """`llms`: plain configs of the models, the first one the run's own. `retry`: outcomes of kept replies that are asked
    again, besides `error`. `judged` and `progress` grow as it goes on, so that what was done is there when it stops."""

    collection: Collection
    annotator: Annotator
    pools: Mapping[str, Sequence[str]]
    llms: Sequence[Mapping[str, Any]]
    store: Path
    max_failure_rate: float
    retry: tuple[str, ...] = ()
    judged: Judged = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    _start: float | None = None
    _spent: float = 0.0

    @property
    def seconds(self) -> float:
        """Of wall time since the asking began."""
        return self._spent if self._start is None else time.perf_counter() - self._start

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
        return [identity_of(llm) for llm in self.llms] if self.annotator.needs_llm else []

    def questions(self) -> Iterator[Question]:
        return (question_of(self.collection, q, list(pool)) for q, pool in self.pools.items())


class Here:
    """In this process."""

    def run(self, work: Work, tell: Callable[[Work], None]) -> None:
        """Ask what the store does not hold; UserError where it cannot go on, with what was answered kept and judged."""
        store = Store(work.store)
        engines: list[Engine] = []
        try:
            if work.annotator.needs_llm:
                engines.extend(hydra.utils.instantiate(llm, _convert_="all") for llm in work.llms)
            llms = [LLM(model, engine) for model, engine in zip(work.models, engines, strict=True)]
            with work.timed():
                ask(work, store, llms, tell)
        finally:
            store.close()
            for engine in engines:
                engine.close()


def ask(work: Work, store: Store, llms: Sequence[LLM], tell: Callable[[Work], None]) -> None:
    """Run the chains of all questions, in the order of the pools; UserError where more than `max_failure_rate` failed."""

    def on_call(progress: Progress) -> None:
        tell(work)

    slug = work.collection.slug
    chains = Chains(work.annotator, store, slug, llms, work.max_failure_rate, on_call, work.progress, work.retry)
    for query_id, judgements in chains.run(work.questions()):
        work.judged[query_id] = judgements
        tell(work)
    stop_where_too_many_failed(work.progress, work.max_failure_rate)


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
