"""A ranking that stands in a file."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uar.collections import Collection
from uar.collections.collection_runs import of_queries, without_own
from uar.retrievers.ranker import Pools, Ranker
from uar.storage.files import file_hash
from uar.storage.runs import Run, cut_at, read_run

log = logging.getLogger(__name__)


class RunFile(Ranker):
    """`path`: a TREC run, or a candidates file whose order is the ranking; DataError where it is faulty. To rank and to score
    raise UnknownQueries where it has none of the queries."""

    def __init__(self, path: str | Path) -> None:
        self._run, self.name = read_run(Path(path)), str(path)

    @property
    def searches(self) -> bool:
        return False

    @property
    def cuts(self) -> bool:
        return False

    @property
    def is_timed(self) -> bool:
        return False

    def key(self, collection: Collection) -> str:
        return file_hash(Path(self.name))

    def reach(self, collection: Collection, depth: int) -> int:
        """Where the lists of the collection's queries were cut, whatever `depth` is; see `cut_at`."""
        lists = {q: self._run[q] for q in collection.queries if q in self._run}
        cut = cut_at(lists)
        return max([depth, *map(len, lists.values())]) if cut is None else cut

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        """All that the file holds of the queries, however deep. Passages that the corpus lacks keep their places, and the log
        says how many there are."""
        run = of_queries(self._run, collection, query_ids, self.name)
        self._tell_unknown(collection, run)
        return without_own(collection, run)

    def _tell_unknown(self, collection: Collection, run: Run) -> None:
        doc_ids = list({doc_id for hits in run.values() for doc_id, _ in hits})
        unknown = {doc_ids[at] for at in np.flatnonzero(collection.corpus.find(doc_ids) < 0)}
        if unknown:
            found = [(query_id, doc_id) for query_id, hits in run.items() for doc_id, _ in hits if doc_id in unknown]
            log.warning(
                "%s: %d of %d passages are not in the corpus of %s, such as %r of query %r, and keep their ranks",
                self.name, len(found), sum(map(len, run.values())), collection.reference, *found[0][::-1],
            )  # fmt: skip

    def score(self, collection: Collection, pools: Pools) -> Run:
        known = of_queries(self._run, collection, list(pools), self.name)
        wanted = {q: set(pools[q]) for q in known}
        return {q: [hit for hit in hits if hit[0] in wanted[q]] for q, hits in known.items()}
