"""Scores of single questions that stay in the cache, so that what is the same in every run is measured once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uar.collections import Collection
from uar.errors import DataError
from uar.evaluation.measures import made_by, per_query
from uar.evaluation.retrieving import Retrieving, scored_queries
from uar.evaluation.score_files import Values, by_measure, read_score_file, write_score_file
from uar.retrievers.ranker import Ranker
from uar.storage.files import cache_dir, digest

FOLDER = "scores"


@dataclass(frozen=True)
class Measured:
    """Values by slug, and the seconds that those took which the cache did not have."""

    values: Mapping[str, Values]
    seconds: float


def measured(
    ranker: Ranker, collections: Sequence[Collection], measures: Sequence[str], retrieving: Retrieving, part: str
) -> Measured:
    """Of a ranker, which is opened only for what the cache has not got. `part`: its name in a folder of kept vectors."""
    start = time.perf_counter()
    found: dict[str, Values] = {}
    missing: list[tuple[Collection, Path | None]] = []
    for collection in collections:
        path = _path(ranker, collection, measures, retrieving)
        kept = _kept(path)
        if kept is None:
            missing.append((collection, path))
        else:
            found[collection.slug] = kept
    if not missing:
        return Measured(found, 0.0)
    with retrieving.session() as session:
        opened = ranker.opened(session, part)
        for at, (collection, path) in enumerate(missing):
            query_ids = scored_queries(collection)
            scores = per_query(collection, retrieving.run(collection, opened, query_ids), measures, query_ids)
            if path is not None:
                write_score_file(path, scores)
            found[collection.slug] = by_measure(scores)
            if collection.corpus.hash not in {later.corpus.hash for later, _ in missing[at + 1 :]}:
                session.release(collection.corpus)
    return Measured({c.slug: found[c.slug] for c in collections}, time.perf_counter() - start)


def keep(ranker: Ranker, collection: Collection, values: Values, measures: Sequence[str], retrieving: Retrieving) -> None:
    """Have the cache hold scores of a ranker that were measured elsewhere."""
    if path := _path(ranker, collection, measures, retrieving):
        write_score_file(path, [(query_id, m, value) for m in measures for query_id, value in values[m].items()])


def _path(ranker: Ranker, collection: Collection, measures: Sequence[str], retrieving: Retrieving) -> Path | None:
    key = retrieving.key(collection, ranker)
    return cache_dir() / FOLDER / f"{digest(key, list(measures), *made_by(measures))}.parquet" if key else None


def _kept(path: Path | None) -> Values | None:
    """None where it is not there, or broken and thus measured anew."""
    try:
        return read_score_file(path) if path and path.is_file() else None
    except DataError:
        return None
