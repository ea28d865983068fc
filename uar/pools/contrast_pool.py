"""Pools of passages that a ranking has at its top and of passages that it has not, so that a grader sees both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from uar.collections import Collection
from uar.errors import UserError
from uar.pools.pool_source import PoolSource
from uar.pools.union_pool import by_turns
from uar.retrievers.ranker import Ranker
from uar.storage.ordering import rank_of

FEW = 4  # times as many passages as are not to be drawn: from fewer all are put into an order


@dataclass(frozen=True, kw_only=True)
class ContrastPool(PoolSource):
    """Of `depth` passages, `outside` are drawn from all of the corpus but the `top` best of `source`, and the others from
    these (DIRAS, arXiv 2406.14162). `outside=None`: half of them; more where the ranking found
    too few. Of the source's other options those of this pool count."""

    source: PoolSource
    top: int = 20
    outside: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outside is not None and not 0 <= self.outside <= self.depth:
            raise UserError(f"candidates.outside={self.outside}: from 0 to candidates.depth={self.depth} are needed, or null")
        if self.top < self.depth - self._outside:
            raise UserError(
                f"candidates.top={self.top}: {self.depth - self._outside} passages are to be drawn from so many; raise it"
            )

    @property
    def _outside(self) -> int:
        return self.depth // 2 if self.outside is None else self.outside

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        best = replace(self.source, depth=self.top, include_positive=False).best(collection, query_ids)
        inside = {q: self._inside(q, best[q]) for q in query_ids}
        outside = {q: self._others(collection, q, best[q], self.depth - len(inside[q])) for q in query_ids}
        return {q: list(dict.fromkeys([*by_turns([inside[q], outside[q]]), *best[q]])) for q in query_ids}

    def deeper(self, more: int) -> PoolSource:
        """What was not drawn of the top follows already."""
        return self

    def ranked_by(self, retriever: Ranker) -> PoolSource:
        return replace(self, source=self.source.ranked_by(retriever))

    def _inside(self, query_id: str, best: Sequence[str]) -> list[str]:
        drawn = sorted(best, key=lambda d: rank_of(self.seed, "inside", query_id, d))
        return drawn[: self.depth - self._outside]

    def _others(self, collection: Collection, query_id: str, best: Sequence[str], wanted: int) -> list[str]:
        """Fewer where the corpus has no more."""
        corpus, aside = collection.corpus, {*best, *([query_id] if collection.drop_own else [])}
        if len(corpus) <= FEW * (len(aside) + wanted):
            others = [d for d in corpus.ids() if d not in aside]
            return sorted(others, key=lambda d: rank_of(self.seed, "outside", query_id, d))[:wanted]
        found: dict[str, None] = {}
        for number in count():
            if len(found) == wanted:
                return list(found)
            draw = int.from_bytes(rank_of(self.seed, "outside", query_id, str(number))[:8], "little")
            doc_id = corpus.id(draw % len(corpus))
            if doc_id not in aside:
                found[doc_id] = None
        raise AssertionError("unreachable")
