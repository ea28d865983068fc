"""Pools of what a retriever finds with texts that an LLM wrote for queries or passages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from uar.collections import Collection
from uar.expansion.by_llm import ByLLM
from uar.expansion.expanded import expanded_by
from uar.pools import PoolSource
from uar.retrievers.ranker import Ranker


@dataclass(frozen=True, kw_only=True)
class ExpandedPool(PoolSource):
    """The `depth` best passages by `retriever`, which is loaded when pools are asked for, with what `expand` has written. The
    passages shown are those of the collection."""

    retriever: Callable[[], Ranker]
    expand: ByLLM

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        from uar.retrievers.session_ranker import own_session  # brings torch, which BM25 has no use for

        with own_session() as session:
            found = expanded_by(self.retriever(), self.expand).opened(session).rank(collection, query_ids, self.depth)
        return {q: [d for d, _ in hits] for q, hits in found.items()}

    def ranked_by(self, retriever: Ranker) -> PoolSource:
        return replace(self, retriever=lambda: retriever)
