"""Rankers that work in a session, and alone open one for each call."""

from abc import abstractmethod
from collections.abc import Sequence

from uar.collections import Collection
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.storage.runs import Run


class SessionRanker(Ranker):
    """Ranks and scores by what `opened` gives. Without a session, what it makes of a corpus is made for one call alone, and
    searched exactly."""

    @abstractmethod
    def opened(self, session: Session, part: str = "") -> Ranker:
        """The ranker that does the work, see `Ranker.opened`."""

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        with Session(ExactSearch) as session:
            return self.opened(session).rank(collection, query_ids, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        with Session(ExactSearch) as session:
            return self.opened(session).score(collection, pools)
