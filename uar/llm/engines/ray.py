"""Asking by Ray Data actors on one machine or many: each holds the models, all write to one store."""

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra

from uar.errors import UserError
from uar.llm.call import Asker, Item, Questions
from uar.llm.engines.work import Report, Work, ask
from uar.llm.failing import stop_when_surely_failing, stop_where_too_many_failed
from uar.llm.models import LLM, Model
from uar.llm.store.journal import adopt_new_journals, journals_of
from uar.llm.store.store import Store
from uar.machine.ray_cluster import actor_environment, cluster, enter

IN_FLIGHT = 2  # batches that an actor has at most: more would wait for it while another is idle


class RayEngine:
    """`actors` replicas of the run's models, each with `num_cpus` and `num_gpus`; an actor takes `batch_size` questions at a
    time. `address`: of a running cluster, whose machines see the collection and the store under the same paths; null starts
    one here."""

    def __init__(
        self, actors: int = 2, num_cpus: float = 0.5, num_gpus: float = 0, batch_size: int = 64, address: str | None = None
    ) -> None:
        if actors < 1 or batch_size < 1:
            raise UserError(f"engine.actors={actors}, engine.batch_size={batch_size}: at least 1 is needed")
        self._actors, self._num_cpus, self._num_gpus = actors, num_cpus, num_gpus
        self._batch_size, self._address = batch_size, address

    @classmethod
    def gpus(cls, config: Mapping[str, Any], of_models: Sequence[float]) -> float:
        """GPUs that a run holds, whatever its models work on."""
        return float(config["actors"] * config["num_gpus"])

    def run(self, work: Work, report: Report) -> None:
        """Like `LocalEngine.run`. Questions are dealt out in batches; what an actor answered is in the store at once."""
        if work.spending:
            raise UserError(
                "engine=ray: its actors do not know what others spend, so price.limit cannot hold; use engine=local"
            )
        known = journals_of(work.store)
        try:
            with cluster("engine", self._address) as ray, work.timed():
                ray.data.DataContext.get_current().enable_progress_bars = False
                for questions in work.parts():
                    if len(questions):  # a gate may leave none for after it
                        self._run_part(ray, work, questions, report)
                    stop_where_too_many_failed(work.progress, work.max_failure_rate)
        finally:
            adopt_new_journals(work.store, known)

    def _run_part(self, ray: Any, work: Work, questions: Questions, report: Report) -> None:
        """Deal out some of the questions, and take in what comes of them."""
        rows = [{"item": pickle.dumps(item)} for item in questions.items()]
        blocks = max(self._actors, -(-len(rows) // self._batch_size))
        done = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            Actor,
            fn_constructor_kwargs={
                "opener": questions.opener(),
                "asker": work.asker,
                "llms": list(work.llms),
                "models": work.models,
                "store": str(work.store.absolute()),
                "retry": work.retry,
                "folder": os.getcwd(),
            },
            batch_size=self._batch_size,
            compute=ray.data.ActorPoolStrategy(size=self._actors, max_tasks_in_flight_per_actor=IN_FLIGHT),
            num_cpus=self._num_cpus,
            num_gpus=self._num_gpus,
            runtime_env={"env_vars": actor_environment(side_by_side=self._actors > 1 and not self._num_gpus)},
        )
        for row in done.iter_rows():
            results, failed, progress, serves, fault = pickle.loads(row["result"])  # noqa: S301 by our own actor
            work.results.update(results)
            work.serves.update(serves)
            work.failed += failed
            work.progress.add(progress)
            report(work)
            if fault:
                raise UserError(fault)
            stop_when_surely_failing(work.progress, work.max_failure_rate)


class Actor:
    """One replica: opens the questions' source and the models once, then asks batch after batch."""

    def __init__(
        self,
        opener: Callable[[], Callable[[Sequence[Item]], Questions]],
        asker: Asker,
        llms: Sequence[Mapping[str, Any]],
        models: Sequence[str],
        store: str,
        retry: tuple[str, ...],
        folder: str,
    ) -> None:
        enter(folder)
        self._questions_of, self._asker = opener(), asker
        self._store, self._retry = Store(Path(store)), retry
        engines: list[Model] = [hydra.utils.instantiate(llm, _convert_="all") for llm in llms]
        self._llms = [LLM(model, engine) for model, engine in zip(models, engines, strict=True)]
        self._serves = {llm.name: engine.serves() for llm, engine in zip(self._llms, engines, strict=True)}
        self._plain = list(llms)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        questions = self._questions_of([pickle.loads(item) for item in batch["item"]])  # noqa: S301 written by the driver
        everything = 1.0  # may fail here: the driver, which knows what all actors did, judges the rate
        work = Work(self._asker, questions, self._plain, self._store.folder, everything, self._retry)
        error = None
        try:
            ask(work, self._store, self._llms, lambda work: None)
        except UserError as caught:
            error = str(caught)
        return {"result": [pickle.dumps((work.results, work.failed, work.progress, self._serves, error))]}
