"""What every pool source shares: depth, the human positive, the order shown, the file."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uar.collections import Collection
from uar.errors import UserError
from uar.retrievers.ranker import Ranker
from uar.storage.files import write_jsonl
from uar.storage.ordering import rank_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolSource:
    """Pools of at most `depth` passages a query, shuffled by (seed, query id).

    `include_positive` puts the human positives in, in place of the last ranked of the others. Where they are as many as the
    pool is deep, the best graded are put in, and one place is left to the best ranked of the others, so that there is a
    negative. Without it the pool is what was ranked, so that a positive is there only where the ranking found it.
    """

    depth: int
    include_positive: bool = True
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise UserError(f"candidates.depth={self.depth}: at least 1 passage a query is needed")

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        """At least `depth` passage ids a query, best first, where the source has as many."""
        raise TypeError(f"{type(self).__name__} must rank passages; use one of those that do, such as BM25Pool")

    def ranked_by(self, retriever: Ranker) -> "PoolSource":
        """This source with the model as it is now where it ranks by a model; others stay as they are."""
        return self

    def deeper(self, more: int) -> "PoolSource":
        """A source whose rankings begin with those of this one and have `more` passages a query, where there are as many."""
        return replace(self, depth=self.depth + more)

    def best(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        """The `depth` best passage ids a query, without its own document where the collection leaves that out. Where human
        positives join the pool and take all of these, the last gives way to the best that is none."""
        people = self._crowded(collection, query_ids)
        deeper = max((len(positives) + 1 - self.depth for positives in people.values()), default=0) + collection.drop_own
        ranked = (self.deeper(deeper) if deeper else self).ranked(collection, query_ids)
        if collection.drop_own:
            ranked = {q: [d for d in found if d != q] for q, found in ranked.items()}
        best = {q: ranked.get(q, [])[: self.depth] for q in query_ids}
        for query_id, positives in people.items():
            other = next((d for d in ranked.get(query_id, []) if d not in positives), None)
            if other is not None and other not in best[query_id]:
                best[query_id][-1:] = [other]
        return best

    def _crowded(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, set[str]]:
        """The positives of the queries that have enough of them to fill a pool."""
        if not self.include_positive or self.depth == 1:
            return {}
        many = [q for q in query_ids if len(collection.positives(q)) >= self.depth]
        return {q: people for q in many if len(people := set(collection.trainable(q))) >= self.depth}

    def pools(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        """Passage ids a query in the order shown; a query without candidates keeps an empty pool."""
        return self.shown(collection, self.best(collection, query_ids))

    def shown(self, collection: Collection, ranked: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Pools of rankings of at most `depth` passages: with the positives and in the order that the options ask for."""
        pools = dict(ranked)
        if self.include_positive:
            pools = {q: self._joined(collection.trainable(q), found) for q, found in ranked.items()}
            joined = sum(not set(pool) <= set(ranked[q]) for q, pool in pools.items())
            if joined:
                line = "Human positives are put into %d of %d pools, whose ranking lacks them (candidates.include_positive)"
                log.info(line, joined, len(pools))
            crowded = self._crowded(collection, list(ranked))
            left_out = [len(people.difference(pools[q])) for q, people in crowded.items()]
            if crowded:
                log.info(
                    "%s: %d of %d queries have at least candidates.depth=%d human positives: the best graded are in their "
                    "pools, a place is left to another passage, and %d positives are left out",
                    collection.reference, len(crowded), len(pools), self.depth, sum(left_out),
                )  # fmt: skip
        return {q: sorted(p, key=lambda d: rank_of(self.seed, q, d)) if self.shuffle else p for q, p in pools.items()}

    def _joined(self, people: list[str], ranked: list[str]) -> list[str]:
        """The ranking with the human positives in it."""
        others = [d for d in ranked if d not in people]
        people = people[: max(1, self.depth - bool(others))]
        kept = {*people, *others[: self.depth - len(people)]}
        return [d for d in ranked if d in kept] + [d for d in people if d not in ranked]


def write_pools(path: Path, pools: Mapping[str, Sequence[str]]) -> None:
    """One {query_id, candidates} line a query, as in a collection's candidates folder."""
    write_jsonl(path, ({"query_id": q, "candidates": pool} for q, pool in pools.items()))
