"""A ranker around another one."""

from copy import copy

from uar.collections import Collection
from uar.retrievers.ranker import Ranker, Search


class WrappedRanker(Ranker):
    """What gives `ranker` other questions or passages, or changes its run. What it does not say itself is as `ranker` says."""

    def __init__(self, ranker: Ranker, name: str) -> None:
        self._ranker, self.name = ranker, name

    @property
    def searches(self) -> bool:
        return self._ranker.searches

    @property
    def lengths(self) -> dict[str, int]:
        return self._ranker.lengths

    def with_room(self, query_length: int | None) -> Ranker:
        other = copy(self)
        other._ranker = self._ranker.with_room(query_length)
        return other

    @property
    def search_options(self) -> frozenset[str]:
        return self._ranker.search_options

    @property
    def is_timed(self) -> bool:
        return self._ranker.is_timed

    def reach(self, collection: Collection, depth: int) -> int:
        return self._ranker.reach(collection, depth)

    def check_search(self, search: Search, collection: Collection) -> None:
        self._ranker.check_search(search, collection)
