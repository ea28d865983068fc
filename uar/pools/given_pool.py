"""Pools that come with the collection or stand in a file of their own."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uar.collections import Collection
from uar.collections.checked_files import candidates_of
from uar.errors import UnknownQueries
from uar.pools.pool_source import PoolSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenPool(PoolSource):
    """`path`: a file of {query_id, candidates} lines, of which those of other splits' queries are left out; without it the
    collection's own candidates/<split>.jsonl. UnknownQueries where neither has any of the split's queries."""

    path: str | None = None

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        if self.path:
            return read_pools(Path(self.path), collection)
        if not collection.candidates:
            raise UnknownQueries(f"{collection.reference} has no candidates file; use candidates=bm25 or candidates.path=FILE")
        return collection.candidates


def read_pools(path: Path, collection: Collection) -> dict[str, list[str]]:
    """Passage ids of the split's queries, each once, in file order. DataError names a faulty line."""
    pools, others = candidates_of(path, collection)
    if not pools:
        raise UnknownQueries(
            f"{path}: none of its {others} lines is of a query of {collection.reference}; give this split's pools"
        )
    if others:
        log.info("%s: %d lines are of queries that %s does not have, and left out", path, others, collection.reference)
    return pools
