"""What every retriever promises: it ranks a corpus and scores given passages."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from uar.collections import Collection
from uar.errors import UnknownPassage, UserError
from uar.retrievers.session import Session
from uar.storage.ordering import best_first
from uar.storage.runs import Run

Pools = Mapping[str, Sequence[str]]  # passage ids a query


class Search(Protocol):
    """What rankers ask the settings of a search (conf/search) before they make vectors; see `ExactSearch`."""

    @property
    def shortcut(self) -> str: ...

    def check(self, passages: int, dim: int) -> None: ...


class Ranker(ABC):
    """What `retriever=NAME` instantiates. A run has the hits of a query best first: by score, then by passage id.

    `name` says in logs, manifests and errors what ranked.
    """

    name: str

    @abstractmethod
    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        """The `depth` best passages of the corpus a query. A query's own document takes no place where the collection leaves
        it out: see `without_own`. A run file, whose ranking is there already, gives all that it has."""

    @abstractmethod
    def score(self, collection: Collection, pools: Pools) -> Run:
        """The passages of each query's pool with scores. A passage that the ranker has no score for is left out, as one that a
        run file lacks. UnknownPassage for one that the corpus lacks."""

    @property
    def searches(self) -> bool:
        """Whether it ranks for any text of a query. A run file knows the queries that it holds and no other."""
        return True

    @property
    def cuts(self) -> bool:
        """Whether `rank` leaves out what is below the depth that it is asked for. A run file is read whole."""
        return True

    @property
    def fuses(self) -> bool:
        """Whether its score of a passage hangs on the others that are ranked with it, as where several rankings are fused."""
        return False

    @property
    def lengths(self) -> dict[str, int]:
        """Tokens that are read of a query and of a passage, by name; none where the texts are read whole. Runs whose lengths
        of one name differ are not compared, so a kind that has lengths of its own, as a ColBERT fills its queries up, has
        names of its own."""
        return {}

    def key(self, collection: Collection) -> str | None:
        """A hash of what its runs of a collection depend on besides the collection, the depth and the search settings. None
        where it does not say, so that none of its runs is taken for one that it would make again."""
        return None

    def with_room(self, query_length: int | None) -> "Ranker":
        """This ranker for queries that texts were added to, of which it reads `query_length` tokens; None: as many as of a
        passage, where that is more than of a query. One that reads them whole, or has no such length, is itself, and for a
        number a UserError."""
        if query_length is not None:
            raise UserError(
                f"expand.query_length={query_length}: how much {self.name} reads of a query cannot be set there; leave it null"
            )
        return self

    @property
    def search_options(self) -> frozenset[str]:
        """Options of the config group `search` that it reads; none where no model ranks."""
        return frozenset()

    @property
    def is_timed(self) -> bool:
        """Whether the time of its answers says how fast it ranks. That of a file does not, nor that of an LLM, which may have
        to be loaded, and whose replies may be there already."""
        return True

    def reach(self, collection: Collection, depth: int) -> int:
        """Results a query that `rank` gives at most where it is asked for `depth`, as far as that is known beforehand."""
        return depth

    def check_search(self, search: Search, collection: Collection) -> None:
        """UserError where vectors of the collection cannot be searched so; asked before any is made."""
        return None

    def opened(self, session: Session, part: str = "") -> "Ranker":
        """This ranker for the length of a session over several collections, from which it takes vectors, search settings and
        devices. `part`: its name among several rankers of the session. A ranker that needs nothing is itself."""
        return self


class Reranker(ABC):
    """What `rerank=NAME` instantiates: it changes the order of a run. `depth`: passages a query that it is meant for, from the
    top of the run on; None for all of them."""

    name: str
    depth: int | None

    @property
    def lengths(self) -> dict[str, int]:
        """As those of a `Ranker`."""
        return {}

    def key(self, collection: Collection) -> str | None:
        """As that of a `Ranker`."""
        return None

    @property
    def search_options(self) -> frozenset[str]:
        """As those of a `Ranker`."""
        return frozenset()

    @property
    def is_timed(self) -> bool:
        """As that of a `Ranker`."""
        return True

    @abstractmethod
    def rerank(self, collection: Collection, run: Run, depth: int | None) -> Run:
        """The run with the first `depth` passages of each query, or all, in a new order. The others follow in their old order,
        with lower scores. UnknownPassage for a passage that the corpus lacks."""

    def opened(self, session: Session, part: str = "") -> "Reranker":
        """As that of a `Ranker`."""
        return self


def run_of(collection: Collection, query_ids: Sequence[str], scores: np.ndarray, rows: np.ndarray) -> Run:
    """From scores and corpus rows, both (queries, found). A row below 0 and a score of minus infinity are none."""
    run = {}
    for query_id, score, row in zip(query_ids, scores, rows, strict=True):
        hits = zip(row.tolist(), score.tolist(), strict=True)
        run[query_id] = best_first((collection.corpus.id(r), s) for r, s in hits if r >= 0 and s > -math.inf)
    return run


def rows_of(collection: Collection, pools: Pools) -> dict[str, np.ndarray]:
    """Corpus rows of the passages of each pool; UnknownPassage for one that the corpus lacks."""
    rows = {q: np.array([collection.corpus.row(d) for d in pool], dtype=np.int64) for q, pool in pools.items()}
    for query_id, own in rows.items():
        if (own < 0).any():
            missing = pools[query_id][int(np.argmax(own < 0))]
            raise UnknownPassage(
                f"{collection.reference}: passage {missing!r} of query {query_id!r} is not in the corpus; remove it, or give "
                "a run of this corpus"
            )
    return rows
