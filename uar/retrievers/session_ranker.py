"""Rankers that work in a session, and alone open one for each call."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from uar.collections import Collection
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.storage.runs import Run

_open_search: ContextVar[Callable[[], ExactSearch]] = ContextVar("open_search", default=ExactSearch)


@contextmanager
def searching(open_search: Callable[[], ExactSearch]) -> Iterator[None]:
    """What is ranked without a session while the block runs is searched so."""
    before = _open_search.set(open_search)
    try:
        yield
    finally:
        _open_search.reset(before)


def own_session() -> Session:
    """Of one call, searched exactly, or as `searching` says."""
    return Session(_open_search.get())


class SessionRanker(Ranker):
    """Ranks and scores by what `opened` gives. Without a session, what it makes of a corpus is made for one call alone."""

    @abstractmethod
    def opened(self, session: Session, part: str = "") -> Ranker:
        """The ranker that does the work, see `Ranker.opened`."""

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        with own_session() as session:
            return self.opened(session).rank(collection, query_ids, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        with own_session() as session:
            return self.opened(session).score(collection, pools)
