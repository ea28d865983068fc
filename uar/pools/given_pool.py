"""Pools that come with the collection or stand in a file of their own."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uar.collections import Collection
from uar.errors import DataError, UnknownQueries
from uar.pools.pool_source import PoolSource
from uar.storage.lines import passage_ids, read_id, read_jsonl

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
    pools: dict[str, list[str]] = {}
    others = 0
    for number, row in read_jsonl(path):
        query_id = read_id(path, number, row, "query_id")
        if query_id not in collection.queries:
            others += 1
            continue
        pools[query_id] = list(dict.fromkeys(passage_ids(path, number, row)))
        odd = next((d for d in pools[query_id] if collection.corpus.row(d) < 0), None)
        if odd is not None:
            raise DataError(path, f"candidate id {odd!r} is not in {collection.reference}; remove it", number)
    if not pools:
        raise UnknownQueries(
            f"{path}: none of its {others} lines is of a query of {collection.reference}; give this split's pools"
        )
    if others:
        log.info("%s: %d lines are of queries that %s does not have, and left out", path, others, collection.reference)
    return pools
