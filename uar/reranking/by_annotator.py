"""Re-ranking by an LLM: any annotator puts the passages of a query into an order."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import hydra

from uar.collections import Collection
from uar.errors import UserError
from uar.llm.one_model import OneModel
from uar.llm.pooled import PooledQuestions
from uar.retrievers.ranker import Reranker, rows_of
from uar.retrievers.session import Session
from uar.storage.ordering import followed
from uar.storage.runs import Run

log = logging.getLogger(__name__)


class ByAnnotator(Reranker):
    """The first `depth` passages of a query, or all, in the order of an annotator's judgements. Those that it
    judges alike keep the order of the run. A passage that got none follows those that got one; a query of which nothing could
    be read keeps its order. Both are counted.

    `annotator`, `llm`: configs; the model, see `OneModel`, is loaded when something has to be asked. Gold answers are never
    shown.
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
        self._model = OneModel("rerank", llm, store, max_failure_rate, retry_failures, price)
        self.name, self.depth = f"{kind} of {self._model.name}", depth

    @property
    def is_timed(self) -> bool:
        return False

    def opened(self, session: Session, part: str = "") -> "ByAnnotator":
        self._model.opened(session)
        return self

    def rerank(self, collection: Collection, run: Run, depth: int | None) -> Run:
        shown = self._annotator.shows_labels_of
        if shown is not None and shown.judged_as(collection):
            raise UserError(
                f"rerank.annotator.examples_from={shown.reference}: its labels are what the ranking is measured on; give "
                "another split"
            )
        pools = {q: [d for d, _ in hits[:depth]] for q, hits in run.items()}
        rows_of(collection, pools)
        orders = self._orders(collection, {q: pool for q, pool in pools.items() if len(pool) > 1})
        found = {}
        for query_id, hits in run.items():
            order = orders.get(query_id, pools[query_id])
            found[query_id] = followed([(d, float(len(order) - place)) for place, d in enumerate(order)], hits)
        return found

    def _order(self, judged: Sequence[Any], pool: Sequence[str]) -> list[str]:
        """Passages by their judgements, best first. Of one score, or without scores of one grade where each passage was judged
        alone, are ties; another annotator means the ranks that it gives."""

        def said(j: Any) -> tuple[bool, float]:
            return (False, j.score) if j.score is not None else (True, j.grade if self._annotator.passage_wise else j.rank)

        place = {doc_id: at for at, doc_id in enumerate(pool)}
        ties = groupby(sorted(judged, key=lambda j: j.rank), key=said)
        return [j.doc_id for _, tied in ties for j in sorted(tied, key=lambda j: place[j.doc_id])]

    def _orders(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Passages by query, best first; nothing of a query whose replies failed."""
        if note := self._annotator.notes(map(len, pools.values())):
            log.info("%s: %s", self.name, note)
        bare = {q: replace(query, answers=()) for q, query in collection.queries.items()}
        questions = PooledQuestions(replace(collection, queries=bare), pools)
        work = self._model.ask(self._annotator, questions, "re-rank", self.name)
        orders = {q: self._order(judged, pools[q]) for q, judged in work.results.items()}
        unread = len(pools) - len(orders)
        behind = sum(len(pools[q]) - len(order) for q, order in orders.items())
        if unread or behind:
            log.warning(
                "%s: calls failed: %d of %d questions keep the order of the run, and %d passages of others follow those that "
                "were judged", collection.slug, unread, len(pools), behind,
            )  # fmt: skip
        return orders
