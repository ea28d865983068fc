"""Annotation by Ray Data actors on one machine or many: each holds an engine, all write to one store."""

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra

from uar.annotation.annotators import Annotator
from uar.annotation.judgement import Judged
from uar.collections import open_collection
from uar.errors import EngineError, UserError
from uar.llm.chains import Progress
from uar.llm.engines.work import Work, ask
from uar.llm.failing import stop_when_surely_failing, stop_where_too_many_failed
from uar.llm.models import LLM, Engine
from uar.llm.store.journal import adopt_new_journals, journals_of
from uar.llm.store.store import Store

IN_FLIGHT = 2  # batches that an actor has at most: more would wait for it while another is idle


class RayData:
    """`actors` replicas of the run's models, each with `num_cpus` and `num_gpus`; an actor takes `batch_size` queries at a
    time. `address`: of a running cluster, whose machines see the collection and the store under the same paths; null starts
    one here."""

    def __init__(
        self, actors: int = 2, num_cpus: float = 0.5, num_gpus: float = 0, batch_size: int = 64, address: str | None = None
    ) -> None:
        if actors < 1 or batch_size < 1:
            raise UserError(f"engine.actors={actors}, engine.batch_size={batch_size}: at least 1 is needed")
        self._actors, self._num_cpus, self._num_gpus = actors, num_cpus, num_gpus
        self._batch_size, self._address = batch_size, address

    def run(self, work: Work, tell: Callable[[Work], None]) -> None:
        """Like `Here.run`. Queries are dealt out in batches; what an actor answered is in the store at once."""
        try:
            import ray
        except ImportError as error:
            raise EngineError("engine=ray: Ray is not installed; run: pip install 'uar[ray]'") from error
        if not work.annotator.needs_llm:
            raise UserError("engine=ray: this annotator asks nothing; leave engine=local")
        known = journals_of(work.store)
        ray.init(address=self._address, ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            rows = [{"query_id": q, "pool": list(pool)} for q, pool in work.pools.items()]
            blocks = max(self._actors, -(-len(rows) // self._batch_size))
            done = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
                Actor,
                fn_constructor_kwargs={
                    "reference": work.collection.reference,
                    "annotator": work.annotator,
                    "llms": list(work.llms),
                    "models": work.models,
                    "store": str(work.store.absolute()),
                    "retry": work.retry,
                    "folder": os.getcwd(),
                    "environment": {k: v for k, v in os.environ.items() if k.startswith(("HF_", "UAR_", "TOKENIZERS_"))},
                },
                batch_size=self._batch_size,
                compute=ray.data.ActorPoolStrategy(size=self._actors, max_tasks_in_flight_per_actor=IN_FLIGHT),
                num_cpus=self._num_cpus,
                num_gpus=self._num_gpus,
            )
            with work.timed():
                for row in done.iter_rows():
                    judged, progress, told = pickle.loads(row["result"])  # noqa: S301 written by our own actor
                    work.judged.update(judged)
                    work.progress.add(progress)
                    tell(work)
                    if told:
                        raise UserError(told)
                    stop_when_surely_failing(work.progress, work.max_failure_rate)
            stop_where_too_many_failed(work.progress, work.max_failure_rate)
        finally:
            ray.shutdown()
            adopt_new_journals(work.store, known)


class Actor:
    """One replica: opens collection and engines once, then annotates batch after batch."""

    def __init__(
        self,
        reference: str,
        annotator: Annotator,
        llms: Sequence[Mapping[str, Any]],
        models: Sequence[str],
        store: str,
        retry: tuple[str, ...],
        folder: str,
        environment: Mapping[str, str],
    ) -> None:
        os.environ.update(environment)
        if Path(folder).is_dir():
            os.chdir(folder)  # relative paths of references and models
        self._collection = open_collection(reference)
        self._annotator, self._store, self._retry = annotator, Store(Path(store)), retry
        engines: list[Engine] = [hydra.utils.instantiate(llm, _convert_="all") for llm in llms]
        self._llms = [LLM(model, engine) for model, engine in zip(models, engines, strict=True)]
        self._plain = list(llms)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        pools = {str(q): [str(d) for d in pool] for q, pool in zip(batch["query_id"], batch["pool"], strict=True)}
        everything = 1.0  # may fail here: the driver, which knows what all actors did, judges the rate
        work = Work(self._collection, self._annotator, pools, self._plain, self._store.folder, everything, self._retry)
        error = None
        try:
            ask(work, self._store, self._llms, lambda work: None)
        except UserError as caught:
            error = str(caught)
        result: tuple[Judged, Progress, str | None] = (work.judged, work.progress, error)
        return {"result": [pickle.dumps(result)]}
