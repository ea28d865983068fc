"""Asking by Ray actors on one machine or many: each holds the models, all write to one store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import hydra

from uar.errors import UserError
from uar.llm.call import Asker, Item, Questions
from uar.llm.engines.work import Report, Work, ask
from uar.llm.failing import stop_when_surely_failing, stop_where_too_many_failed
from uar.llm.models import LLM, Model, model_class
from uar.llm.progress import Progress
from uar.llm.store.journal import adopt_new_journals, journals_of
from uar.llm.store.store import Store
from uar.machine.workers import Workers


@dataclass(frozen=True)
class Replicas(Workers):
    """Actors of the engine. `works_on`: GPUs of a machine with any, of which each has so many where `num_gpus` is None."""

    works_on: float = 1.0
    option = "engine"

    def gpus(self, there: float) -> float:
        return (self.works_on if there else 0.0) if self.num_gpus is None else self.num_gpus


class RayEngine:
    """`actors` replicas of the run's models, each with `num_cpus` and `num_gpus`, None for as many as its models work on; an
    actor takes `batch_size` questions at a time. `address`: of a running cluster, whose machines see the collection and the
    store under the same paths; null starts one here."""

    def __init__(
        self,
        actors: int = 2,
        num_cpus: float = 0.5,
        num_gpus: float | None = None,
        batch_size: int = 64,
        address: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"engine.batch_size={batch_size}: at least 1 is needed")
        self._workers, self._batch_size = Replicas(actors, num_cpus, num_gpus, address), batch_size

    @classmethod
    def gpus(cls, config: Mapping[str, Any], of_models: Sequence[float]) -> float:
        """GPUs that a run holds, whatever its models work on."""
        each = config["num_gpus"]
        return float(config["actors"] * (max(of_models, default=0) if each is None else each))

    def run(self, work: Work, report: Report) -> None:
        """Like `LocalEngine.run`. Questions are dealt out in batches; what an actor answered is in the store at once."""
        if work.spending:
            raise UserError(
                "engine=ray: its actors do not know what others spend, so price.limit cannot hold; use engine=local"
            )
        known, store = journals_of(work.store), work.store.absolute()
        held = [model_class(config).gpus(config) or 0 for config in work.llms]
        workers = replace(self._workers, works_on=max(held, default=0))
        opener = partial(_replica, work.questions.opener(), work.asker, list(work.llms), work.models, store, work.retry)
        try:
            with workers.opened(opener, len(work.questions), written=store) as crew, work.timed():
                for questions in work.parts():
                    for _, replied in crew.each(self._batches(questions)):
                        _take_in(work, replied, report)
                    stop_where_too_many_failed(work.progress, work.max_failure_rate)
        finally:
            adopt_new_journals(work.store, known)

    def _batches(self, questions: Questions) -> Iterator[list[Item]]:
        """Smaller ones where there would be less than one an actor."""
        size = max(1, min(self._batch_size, -(-len(questions) // self._workers.actors)))
        items = iter(questions.items())
        while batch := list(islice(items, size)):
            yield batch


class Replied(NamedTuple):
    """What came of a batch; `fault`: what ended it."""

    results: Mapping[str, Any]
    failed: Sequence[str]
    progress: Progress
    serves: Mapping[str, dict[str, Any]]
    fault: str | None


def _take_in(work: Work, replied: Replied, report: Report) -> None:
    work.results.update(replied.results)
    work.serves.update(replied.serves)
    work.failed += replied.failed
    work.progress.add(replied.progress)
    report(work)
    if replied.fault:
        raise UserError(replied.fault)
    stop_when_surely_failing(work.progress, work.max_failure_rate)


def _replica(
    opener: Callable[[], Callable[[Sequence[Item]], Questions]],
    asker: Asker,
    configs: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    folder: Path,
    retry: tuple[str, ...],
) -> Callable[[Sequence[Item], None], Replied]:
    """Opens the questions' source and the models, once an actor, for what asks batch after batch."""
    questions_of, store = opener(), Store(folder)
    engines: list[Model] = [hydra.utils.instantiate(config, _convert_="all") for config in configs]
    llms = [LLM(model, engine) for model, engine in zip(models, engines, strict=True)]
    serves = {llm.name: engine.serves() for llm, engine in zip(llms, engines, strict=True)}

    def replied(batch: Sequence[Item], _: None) -> Replied:
        everything = 1.0  # may fail here: the driver, which knows what all actors did, judges the rate
        work = Work(asker, questions_of(batch), configs, folder, everything, retry)
        fault = None
        try:
            ask(work, store, llms, lambda work: None)
        except UserError as error:
            fault = str(error)
        return Replied(work.results, work.failed, work.progress, serves, fault)

    return replied
