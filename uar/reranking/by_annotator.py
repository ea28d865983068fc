"""Re-ranking by an LLM: any annotator puts the passages of a query into an order."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra

from uar.collections import Collection
from uar.errors import UserError
from uar.launch.bars import bar
from uar.llm.costs.ledger import Prices, ledger
from uar.llm.engines.work import Work, ask, outcomes_to_retry
from uar.llm.failing import write_failures
from uar.llm.models import LLM
from uar.llm.pooled import PooledQuestions
from uar.llm.progress import joined
from uar.llm.store.store import Store
from uar.retrievers.ranker import Reranker, rows_of
from uar.retrievers.session import Session
from uar.storage.files import write_json
from uar.storage.ordering import followed
from uar.storage.runs import Run

log = logging.getLogger(__name__)
LEDGER, FAILURES = "rerank_ledger.json", "rerank_failures.jsonl"


class ByAnnotator(Reranker):
    """The first `depth` passages of a query, or all, in the order of an annotator's judgements. A passage that got none
    follows those that got one; a query of which nothing could be read keeps its order. Both are counted.

    `annotator`, `llm`: configs; the model is loaded when something has to be asked. Replies are kept in `store`, as those of
    annotations are. A run folder is told the costs in LEDGER and the calls that failed in FAILURES; more than
    `max_failure_rate` of all calls are a UserError. Gold answers are never shown.
    """

    def __init__(
        self,
        annotator: Mapping[str, Any],
        llm: Mapping[str, Any],
        store: str,
        depth: int | None = 20,
        max_failure_rate: float = 0.05,
        retry_failures: Sequence[str] = (),
        price: Mapping[str, Any] | None = None,
    ) -> None:
        if depth is not None and depth < 1:
            raise UserError(f"rerank.depth={depth}: at least 1 passage a query is needed, or null for the whole run")
        self._annotator: Any = hydra.utils.instantiate(annotator, _convert_="all")
        kind = type(self._annotator).__name__
        if not self._annotator.needs_llm or self._annotator.needs_gold_answers or self._annotator.models != 1:
            raise UserError(
                f"rerank.annotator: {kind} asks no model, asks several, or compares with gold answers, which no ranking may "
                "know; choose likelihood, pointwise, setwise or listwise"
            )
        self._config, self._store, self.depth = llm, Path(store), depth
        self._rate, self._retry, self._prices = max_failure_rate, outcomes_to_retry(retry_failures), Prices(**(price or {}))
        self._done: list[Work] = []
        self._folder: Path | None = None
        self._llm: LLM | None = None
        (model,) = self._work(None).models
        self.name = f"{kind} of {model}"

    def opened(self, session: Session, part: str = "") -> "ByAnnotator":
        self._folder = session.folder
        session.at_end(self._close)
        return self

    def rerank(self, collection: Collection, run: Run, depth: int | None) -> Run:
        pools = {q: [d for d, _ in hits[:depth]] for q, hits in run.items()}
        rows_of(collection, pools)
        orders = self._orders(collection, {q: pool for q, pool in pools.items() if len(pool) > 1})
        found = {}
        for query_id, hits in run.items():
            order = orders.get(query_id, pools[query_id])
            found[query_id] = followed([(d, float(len(order) - place)) for place, d in enumerate(order)], hits)
        return found

    def _orders(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Passages by query, best first; nothing of a query whose replies failed."""
        if note := self._annotator.notes(map(len, pools.values())):
            log.info("%s: %s", self.name, note)
        bare = {q: replace(query, answers=()) for q, query in collection.queries.items()}
        work = self._work(PooledQuestions(replace(collection, queries=bare), pools))
        self._done.append(work)
        store = Store(self._store)
        try:
            with work.timed(), bar("re-rank", len(pools), "questions") as shown:
                ask(work, store, [self._open(work)], lambda work: shown.at(len(work.results)))
        finally:
            store.close()
            self._tell_costs()
        orders = {q: [j.doc_id for j in sorted(judged, key=lambda j: j.rank)] for q, judged in work.results.items()}
        total = work.progress.total
        line = "%s: %s: %d calls asked, %d taken from the store, %d failed"
        log.info(line, collection.slug, self.name, total.asked, total.kept, len(work.progress.failures))
        unread = len(pools) - len(orders)
        behind = sum(len(pools[q]) - len(order) for q, order in orders.items())
        if unread or behind:
            log.warning(
                "%s: calls failed: %d of %d questions keep the order of the run, and %d passages of others follow those that "
                "were judged", collection.slug, unread, len(pools), behind,
            )  # fmt: skip
        return orders

    def _work(self, questions: Any) -> Work:
        return Work(self._annotator, questions, [self._config], self._store, self._rate, self._retry)

    def _tell_costs(self) -> None:
        """Of all collections so far, in the run folder where there is one."""
        if self._folder is None:
            return
        done, progress = self._done, joined(work.progress for work in self._done)
        ranked = [judged for work in done for judged in work.results.values()]
        asked = sum(len(work.questions) for work in done)
        spent = ledger(
            progress, len(ranked), sum(map(len, ranked)), sum(work.seconds for work in done), done[0].models, self._prices,
            asked - len(ranked),
        )  # fmt: skip
        write_json(self._folder / LEDGER, spent)
        write_failures(self._folder, progress.failures, FAILURES)

    def _open(self, work: Work) -> LLM:
        if self._llm is None:
            self._llm = LLM(work.models[0], hydra.utils.instantiate(self._config, _convert_="all"))
        return self._llm

    def _close(self) -> None:
        if self._llm is not None and self._llm.model is not None:
            self._llm.model.close()
        self._llm = None
