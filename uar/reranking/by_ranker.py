"""Re-ranking by the scores of a retriever."""

import logging

from uar.collections import Collection
from uar.errors import UserError
from uar.retrievers.ranker import Ranker, Reranker
from uar.retrievers.search_options import SCORING
from uar.retrievers.session import Session
from uar.storage.ordering import followed
from uar.storage.runs import Run

log = logging.getLogger(__name__)


class ByRanker(Reranker):
    """The first `depth` passages of a query, or all, in the order of a retriever's scores."""

    def __init__(self, retriever: Ranker, depth: int | None = None) -> None:
        if depth is not None and depth < 1:
            raise UserError(f"rerank.depth={depth}: at least 1 passage a query is needed, or null for the whole run")
        self._retriever, self.depth, self.name = retriever, depth, retriever.name

    @property
    def lengths(self) -> dict[str, int]:
        return self._retriever.lengths

    @property
    def search_options(self) -> frozenset[str]:
        return self._retriever.search_options & SCORING

    @property
    def is_timed(self) -> bool:
        return self._retriever.is_timed

    def key(self, collection: Collection) -> str | None:
        return self._retriever.key(collection)

    def opened(self, session: Session, part: str = "") -> "ByRanker":
        return ByRanker(self._retriever.opened(session, part), self.depth)

    def rerank(self, collection: Collection, run: Run, depth: int | None) -> Run:
        """Passages that the retriever has no scores for follow those that it has scores for."""
        pools = {q: [d for d, _ in hits[:depth]] for q, hits in run.items()}
        scores = self._retriever.score(collection, pools)
        missing = sum(len(pool) - len(scores.get(q, ())) for q, pool in pools.items())
        if missing:
            log.warning("%s: %s has no score for %d passages, which keep their order", collection.slug, self.name, missing)
        return {q: followed(scores.get(q, ()), hits) for q, hits in run.items()}
