"""What every pool source shares: depth, the human positive, the order shown, the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uar.collections import Collection
from uar.errors import UserError
from uar.storage.files import write_jsonl
from uar.storage.ordering import rank_of


@dataclass(frozen=True)
class PoolSource:
    """Pools of at most `depth` passages a query, shuffled by (seed, query id).

    `include_positive` puts the human positives in, in place of the last ranked of the others; without it the pool is what was
    ranked, so that a positive is there only where the ranking found it.
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

    def best(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        """The `depth` best passage ids a query, without its own document where the collection leaves that out."""
        if not collection.drop_own:
            ranked = self.ranked(collection, query_ids)
        else:
            deeper = replace(self, depth=self.depth + 1).ranked(collection, query_ids)
            ranked = {q: [d for d in found if d != q] for q, found in deeper.items()}
        return {q: ranked.get(q, [])[: self.depth] for q in query_ids}

    def pools(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        """Passage ids a query in the order shown; a query without candidates keeps an empty pool."""
        return self.shown(collection, self.best(collection, query_ids))

    def shown(self, collection: Collection, ranked: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Pools of rankings of at most `depth` passages: with the positives and in the order that the options ask for."""
        return {q: self._pool(collection, q, found) for q, found in ranked.items()}

    def _pool(self, collection: Collection, query_id: str, pool: list[str]) -> list[str]:
        if self.include_positive:
            people = collection.trainable(query_id)[: self.depth]
            others = [d for d in pool if d not in people][: self.depth - len(people)]
            kept = {*people, *others}
            pool = [d for d in pool if d in kept] + [d for d in people if d not in pool]
        return sorted(pool, key=lambda d: rank_of(self.seed, query_id, d)) if self.shuffle else pool


def write_pools(path: Path, pools: dict[str, list[str]]) -> None:
    """One {query_id, candidates} line a query, as in a collection's candidates folder."""
    write_jsonl(path, ({"query_id": q, "candidates": pool} for q, pool in pools.items()))
