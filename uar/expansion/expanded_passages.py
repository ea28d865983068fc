"""A ranker that searches passages with what an LLM wrote for them."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from uar.collections import Collection
from uar.expansion.by_llm import ByLLM
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.session import Session
from uar.retrievers.wrapped_ranker import WrappedRanker
from uar.storage.files import digest
from uar.storage.runs import Run


class ExpandedPassages(WrappedRanker):
    """`ranker`, which is given other texts of the passages under the same ids. Re-rankers, RAG and whoever reads its run see
    the passages themselves."""

    def __init__(self, ranker: Ranker, expansion: ByLLM) -> None:
        super().__init__(ranker, f"{ranker.name}, passages expanded by {expansion.document_name}")
        self._expansion = expansion
        self._session: Session | None = None

    def key(self, collection: Collection) -> str | None:
        """By what was written, which is asked for where it is missing; None before a session, which the model needs."""
        if not self._expansion.model.is_open:
            return None
        searched = self._searched(collection)
        own = self._ranker.key(searched)
        return None if own is None else digest("expanded passages", own, searched.corpus.hash)

    @property
    def is_timed(self) -> bool:
        return False

    def opened(self, session: Session, part: str = "") -> "ExpandedPassages":
        other = copy(self)
        other._ranker, other._session = self._ranker.opened(session, part), session
        self._expansion.model.opened(session)
        return other

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        return self._ranker.rank(self._searched(collection), query_ids, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        return self._ranker.score(self._searched(collection), pools)

    def _searched(self, collection: Collection) -> Collection:
        corpus = self._expansion.corpus_of(collection)
        if self._session is not None:
            self._session.stands_for(corpus, collection.corpus)
        return replace(collection, corpus=corpus)
