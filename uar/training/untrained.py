"""A retriever as it was before its training."""

from collections.abc import Callable, Sequence
from copy import copy

from uar.collections import Collection
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.session import Session
from uar.retrievers.trainable import Trainable
from uar.storage.runs import Run


class Untrained(Ranker):
    """`retriever`: the one that will be trained, given before that, since its weights are remembered by their hash. `load`:
    makes it anew, when it first has to rank; until then nothing is loaded."""

    def __init__(self, retriever: Trainable, load: Callable[[], Ranker]) -> None:
        self._retriever, self._load, self._lengths = retriever, load, retriever.lengths
        self._weights = retriever.weights_key()
        self.name = f"untrained {retriever.name}"

    @property
    def lengths(self) -> dict[str, int]:
        return self._lengths

    def with_room(self, query_length: int | None) -> "Untrained":
        other = copy(self)
        other._lengths = self._retriever.with_room(query_length).lengths
        other._load = lambda: self._load().with_room(query_length)
        return other

    def key(self, collection: Collection) -> str | None:
        return self._retriever.key_with(self._weights, collection)

    def opened(self, session: Session, part: str = "") -> Ranker:
        return self._load().opened(session, part)

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        return self._load().rank(collection, query_ids, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        return self._load().score(collection, pools)
