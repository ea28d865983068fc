"""A ranker and a re-ranker as one ranker."""

import logging
from collections.abc import Sequence
from typing import Any

import hydra

from uar.collections import Collection
from uar.errors import UnknownPassage, UserError
from uar.retrievers.ranker import Pools, Ranker, Reranker
from uar.retrievers.session import Session
from uar.retrievers.wrapped_ranker import WrappedRanker
from uar.storage.files import digest
from uar.storage.runs import Run

log = logging.getLogger(__name__)


class Reranked(WrappedRanker):
    """The run of `ranker`, put into another order by `reranker`."""

    def __init__(self, ranker: Ranker, reranker: Reranker) -> None:
        top = "" if reranker.depth is None else f"the best {reranker.depth} "
        super().__init__(ranker, f"{ranker.name}, {top}re-ranked by {reranker.name}")
        self._reranker = reranker

    @property
    def cuts(self) -> bool:
        return self._ranker.cuts

    @property
    def lengths(self) -> dict[str, int]:
        return {**self._ranker.lengths, **{f"rerank.{name}": n for name, n in self._reranker.lengths.items()}}

    def key(self, collection: Collection) -> str | None:
        keys = [of.key(collection) for of in (self._ranker, self._reranker)]
        return None if None in keys else digest("reranked", self._reranker.depth, keys)

    @property
    def search_options(self) -> frozenset[str]:
        return self._ranker.search_options | self._reranker.search_options

    @property
    def is_timed(self) -> bool:
        return self._ranker.is_timed and self._reranker.is_timed

    def opened(self, session: Session, part: str = "") -> "Reranked":
        """The re-ranker has vectors of its own."""
        own = f"{part}/rerank" if part else "rerank"
        return Reranked(self._ranker.opened(session, part), self._reranker.opened(session, own))

    def check(self, depth: int) -> None:
        """UserError where more passages a query are to be re-ranked than there are, `depth`."""
        wanted = self._reranker.depth
        if wanted is not None and wanted > depth:
            raise UserError(
                f"rerank.depth={wanted}: {self._ranker.name} gives at most {depth} passages a query; give "
                f"rerank.depth={depth} or less, null for all of them, or a deeper run"
            )

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        if self.searches:
            self.check(depth)
        run = self._ranker.rank(collection, query_ids, depth)
        if not self.searches:
            self.check(max(map(len, run.values()), default=0))
        return self._reordered(collection, run)

    def score(self, collection: Collection, pools: Pools) -> Run:
        return self._reordered(collection, self._ranker.score(collection, pools))

    def _reordered(self, collection: Collection, run: Run) -> Run:
        self._tell_empty(collection, run)
        try:
            return self._reranker.rerank(collection, run, self._reranker.depth)
        except UnknownPassage as error:
            raise UnknownPassage(f"{self._ranker.name}: {error}") from error

    def _tell_empty(self, collection: Collection, run: Run) -> None:
        corpus, depth = collection.corpus, self._reranker.depth
        rows = corpus.find(list({doc_id for hits in run.values() for doc_id, _ in hits[:depth]}))
        empty = sum(not text.strip() for text in corpus.texts_at(rows[rows >= 0]))
        if empty:
            line = "%s: %d of %d passages to re-rank have no text, and are ranked as they are"
            log.warning(line, collection.slug, empty, len(rows))


def reranked(ranker: Ranker, settings: Any, depth: int) -> Ranker:
    """`ranker` as the config group `rerank` says: re-ranked, or alone for `off`. UserError where more than `depth` passages a
    query, which is how deep a search goes, are to be re-ranked."""
    if not settings.get("_target_"):
        return ranker
    both = Reranked(ranker, hydra.utils.instantiate(settings, _convert_="all"))
    if both.searches:
        both.check(depth)
    return both
