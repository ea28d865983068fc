"""Questions of a collection with the texts of passages that are shown with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from uar.collections import Collection, open_collection
from uar.llm.call import Item, Question
from uar.pools.stored_pools import ShownIds


@dataclass(frozen=True)
class PooledQuestions:
    """`pools`: passage ids by query id, in the order shown. Texts are read when a question is."""

    collection: Collection
    pools: Mapping[str, Sequence[str]]

    @property
    def name(self) -> str:
        return self.collection.slug

    def __len__(self) -> int:
        return len(self.pools)

    def __iter__(self) -> Iterator[Question]:
        if isinstance(self.pools, ShownIds):
            rows = ((q, pool.rows.tolist()) for q, pool in self.pools.table.items())
            return (_question(self.collection, q, self.collection.corpus.ids_at(own), own) for q, own in rows)
        return (question_of(self.collection, q, pool) for q, pool in self.pools.items())

    def items(self) -> Iterator[Item]:
        return ({"query_id": q, "pool": list(pool)} for q, pool in self.pools.items())

    def opener(self) -> Callable[[], Callable[[Sequence[Item]], "PooledQuestions"]]:
        return partial(_open, self.collection.reference)


def _open(reference: str) -> Callable[[Sequence[Item]], PooledQuestions]:
    collection = open_collection(reference)
    return lambda items: PooledQuestions(collection, {item["query_id"]: item["pool"] for item in items})


def question_of(collection: Collection, query_id: str, pool: Sequence[str]) -> Question:
    """A question with the texts of its pool."""
    return _question(collection, query_id, pool, collection.corpus.rows(pool))


def _question(collection: Collection, query_id: str, pool: Sequence[str], rows: Sequence[int]) -> Question:
    query, corpus = collection.queries[query_id], collection.corpus
    texts = {d: corpus.text(row) for d, row in zip(pool, rows, strict=True)}
    return Question(query_id, query.text, texts, query.answers, query.image)
