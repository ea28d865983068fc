"""Questions of a collection with the texts of passages that are shown with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from uar.collections import Collection, open_collection
from uar.llm.call import Item, Question
from uar.pools.stored_pools import PoolTable, ShownIds

BLOCK = 256  # questions whose passages are read at once
MAPPED = 16_384  # passages that are read before what was mapped of the corpus, 64 KiB for each at most, is left


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
            return self._in_blocks(self.pools.table)
        return (question_of(self.collection, q, pool) for q, pool in self.pools.items())

    def _in_blocks(self, table: PoolTable) -> Iterator[Question]:
        """The ids and texts of many questions are read at once."""
        corpus, ends, query_ids, read = self.collection.corpus, table.ends.tolist(), list(table), 0
        for start in range(0, len(query_ids), BLOCK):
            block = query_ids[start : start + BLOCK]
            first, last = ends[start], ends[start + len(block)]
            rows = table.rows[first:last]
            ids, texts = corpus.ids_at(rows), corpus.texts_at(rows)
            for at, query_id in enumerate(block, start):
                own = slice(ends[at] - first, ends[at + 1] - first)
                yield _question(self.collection, query_id, dict(zip(ids[own], texts[own], strict=True)))
            read += len(rows)
            if read > MAPPED:
                corpus.leave()
                read = 0

    def items(self) -> Iterator[Item]:
        return ({"query": self.collection.queries[q], "pool": list(pool)} for q, pool in self.pools.items())

    def opener(self) -> Callable[[], Callable[[Sequence[Item]], "PooledQuestions"]]:
        return partial(_open, self.collection.reference)


def _open(reference: str) -> Callable[[Sequence[Item]], PooledQuestions]:
    """The questions are as they come, which may have the gold answers of another file."""
    collection = open_collection(reference)

    def questions_of(items: Sequence[Item]) -> PooledQuestions:
        queries = {item["query"].id: item["query"] for item in items}
        return PooledQuestions(replace(collection, queries=queries), {item["query"].id: item["pool"] for item in items})

    return questions_of


def question_of(collection: Collection, query_id: str, pool: Sequence[str]) -> Question:
    """A question with the texts of its pool."""
    corpus = collection.corpus
    return _question(collection, query_id, dict(zip(pool, corpus.texts_at(corpus.rows(pool)), strict=True)))


def _question(collection: Collection, query_id: str, texts: dict[str, str]) -> Question:
    query = collection.queries[query_id]
    return Question(query_id, query.text, texts, query.answers, query.image)
