"""Pools of a split that the source of the training pools may not know."""

import logging
from collections.abc import Sequence

from uar.collections import Collection
from uar.errors import UnknownQueries
from uar.pools.bm25_pool import BM25Pool
from uar.pools.given_pool import GivenPool
from uar.pools.pool_source import PoolSource

log = logging.getLogger(__name__)
DEEPEST = 100  # passages a query from BM25, which a source of files does not limit


def pools_of_other_split(source: PoolSource, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
    """Pools of `source`. A query that it has nothing of, where its files are those of the training split, takes the
    collection's own candidates, else BM25's, and the log says so."""
    if isinstance(source, BM25Pool):
        return source.pools(collection, query_ids)
    try:
        ranked = source.best(collection, query_ids)
    except UnknownQueries as error:
        log.info("%s", error)
        ranked = {}
    missing = [q for q in query_ids if not ranked.get(q)]
    own = [q for q in missing if collection.candidates.get(q)]
    bare = [q for q in missing if q not in set(own)]
    depth = min(source.depth, DEEPEST)
    if missing:
        log.info(
            "%s: of %d queries that candidates has no pools of, %d take the split's own candidates, %d the best %d by BM25",
            collection.reference, len(missing), len(own), len(bare), depth,
        )  # fmt: skip
        ranked |= GivenPool(source.depth, source.include_positive).best(collection, own) if own else {}
        ranked |= BM25Pool(depth, source.include_positive).best(collection, bare) if bare else {}
    return source.shown(collection, {q: ranked[q] for q in query_ids})
