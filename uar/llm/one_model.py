"""A model that is asked in the course of a retrieval, loaded when it first has to be."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra

from uar.launch.bars import bar
from uar.llm.call import Asker, Questions
from uar.llm.costs.discount import prices_of_one
from uar.llm.costs.ledger import ledger
from uar.llm.engines.work import Work, ask, outcomes_to_retry
from uar.llm.failing import write_failures
from uar.llm.models import LLM, identity_of
from uar.llm.progress import joined
from uar.llm.store.store import Store
from uar.retrievers.session import Session
from uar.storage.files import write_json

log = logging.getLogger(__name__)


class OneModel:
    """`llm`: its config. Replies are kept in `store`, as those of annotations are. That more than `max_failure_rate` of the
    calls of one asking fail is a UserError. The run folder of a session is told what all askings of `stage` cost, in
    `<stage>_ledger.json`, and which calls failed, in `<stage>_failures.jsonl`."""

    def __init__(
        self,
        stage: str,
        llm: Mapping[str, Any],
        store: str,
        max_failure_rate: float,
        retry_failures: Sequence[str] = (),
        price: Mapping[str, Any] | None = None,
    ) -> None:
        self._stage, self._config, self._store = stage, llm, Path(store)
        self._rate, self._retry = max_failure_rate, outcomes_to_retry(retry_failures)
        self._prices = prices_of_one(price, llm)
        self._done: list[tuple[Work, int]] = []  # with the passages that were judged
        self._folder: Path | None = None
        self._llm: LLM | None = None
        self._in_session = False
        self.name = identity_of(llm)

    def opened(self, session: Session) -> None:
        """For the length of a session, with which the model closes."""
        self._folder, self._in_session = session.folder, True
        session.at_end(self._close)

    @property
    def is_open(self) -> bool:
        """Whether a session will close the model."""
        return self._in_session

    def ask(self, asker: Asker, questions: Questions, doing: str, whose: str, unit: str = "questions") -> Work:
        """The work once it is done. `doing` and `unit`, what is counted, stand beside the bar; `whose`: before what is said of
        the calls."""
        work = Work(asker, questions, [self._config], self._store, self._rate, self._retry)
        store = Store(self._store)
        try:
            with work.timed(), bar(doing, len(questions), unit) as shown:
                ask(work, store, [self._open()], lambda work: shown.at(len(work.results)))
        finally:
            store.close()
            judged = sum(len(result) for result in work.results.values() if isinstance(result, list))
            self._done.append((work, judged))
            self._tell_costs()
        total = work.progress.total
        line = "%s: %s: %d calls asked, %d taken from the store, %d failed"
        log.info(line, questions.name, whose, total.asked, total.kept, len(work.progress.failures))
        return work

    def _tell_costs(self) -> None:
        """Of all askings so far, in the run folder where there is one."""
        if self._folder is None:
            return
        progress = joined(work.progress for work, _ in self._done)
        answered = sum(len(work.results) for work, _ in self._done)
        asked = sum(len(work.questions) for work, _ in self._done)
        seconds, pairs = sum(work.seconds for work, _ in self._done), sum(judged for _, judged in self._done)
        spent = ledger(progress, answered, pairs, seconds, [self.name], self._prices, asked - answered)
        write_json(self._folder / f"{self._stage}_ledger.json", spent)
        write_failures(self._folder, progress.failures, f"{self._stage}_failures.jsonl")

    def _open(self) -> LLM:
        if self._llm is None:
            self._llm = LLM(self.name, hydra.utils.instantiate(self._config, _convert_="all"))
        return self._llm

    def _close(self) -> None:
        if self._llm is not None and self._llm.model is not None:
            self._llm.model.close()
        self._llm, self._in_session = None, False
