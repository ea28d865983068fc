"""What a run holds of a collection: its queries, and a query's own document, which is no result."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from uar.collections.collection import Collection
from uar.errors import UnknownQueries
from uar.storage.ordering import Hit
from uar.storage.runs import Run, read_run

log = logging.getLogger(__name__)


def read_known(path: Path, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[Hit]]:
    """What a run file holds of the queries; UnknownQueries where that is nothing."""
    return of_queries(read_run(path), collection, query_ids, str(path))


def of_queries(
    run: Mapping[str, list[Hit]], collection: Collection, query_ids: Sequence[str], name: str
) -> dict[str, list[Hit]]:
    """What a run called `name` holds of the queries; UnknownQueries where that is nothing."""
    kept = {q: run[q] for q in query_ids if q in run}
    if query_ids and not kept:
        raise UnknownQueries(
            f"{name}: no query of {collection.reference} ({len(query_ids)}) is in this run; give a run of this collection"
        )
    return kept


def without_own(collection: Collection, run: Run, depth: int | None = None) -> Run:
    """The run without each query's own document, where the collection's rule is to leave it out (ArguAna, Quora), cut there
    at `depth`: a ranker that is to give so many passages looks one deeper."""
    if not collection.drop_own:
        return run
    kept = {q: [hit for hit in hits if hit[0] != q] for q, hits in run.items()}
    dropped = sum(len(hits) - len(kept[q]) for q, hits in run.items())
    if dropped:
        log.info("%s: the own document of %d queries is left out of their results", collection.reference, dropped)
    return {q: hits[:depth] for q, hits in kept.items()}
