"""Texts that are written for queries and for the passages of their pools, which are searched with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from uar.collections import Collection
from uar.errors import UserError
from uar.expansion.by_llm import writer_of
from uar.expansion.passage_texts import Passages, PassageWriter
from uar.expansion.query_texts import QueryWriter
from uar.llm.call import Asker
from uar.llm.pooled import question_of
from uar.tuning.task import Case, Task, calls_of


@dataclass(frozen=True)
class PooledCase(Case):
    """Of a query. `pool`: ids of the passages among which it is searched."""

    pool: tuple[str, ...] = ()


@dataclass(frozen=True)
class CoAugmentationTask(Task):
    """One case a query, and one a passage of the pools (co-augmentation, arXiv 2506.18670). `writer`, `join`, `repeat`,
    `query_length`, `documents` and `document_writer` are those of `expand=`. There is no right reply, only better ones. What
    is made of a reply is the text that joins its query or its passage."""

    writer: QueryWriter
    documents: str | None
    document_writer: Mapping[str, Any] = field(default_factory=dict)
    join: str = "append"
    repeat: int | None = None
    query_length: int | None = None
    depth: int = 8
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.depth < 2:
            raise UserError(f"task.depth={self.depth}: at least 2 passages a question are needed, one of which can be better")
        self.passage_writer  # noqa: B018 a prompt that cannot be read is refused before anything is asked

    @cached_property
    def passage_writer(self) -> PassageWriter:
        found = writer_of(self.documents, self.document_writer)
        if found is None:
            raise UserError(
                "task=co_augmentation: nothing is written for passages; give expand.documents=keywords, abstract or questions"
            )
        return found

    @property
    def idle(self) -> frozenset[str]:
        return frozenset({"task.shuffle"})

    @property
    def asker(self) -> Asker:
        return self.writer

    def asker_of(self, case: Case) -> Asker:
        return self.writer if isinstance(case, PooledCase) else self.passage_writer

    def cases(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> list[Case]:
        judged = {q: tuple(pool) for q, pool in pools.items() if len(pool) > 1 and collection.trainable(q)}
        if not judged:
            raise UserError(
                f"{collection.reference}: no question has a positive passage and others in its pool; give a split with "
                "judgements, or more candidates"
            )
        of_queries = [self._of_query(collection, q, pool) for q, pool in judged.items()]
        shown = list(dict.fromkeys(d for pool in judged.values() for d in pool))
        questions = Passages(collection.slug, collection.reference, collection.corpus, shown)
        return [*of_queries, *(Case(one, calls_of(self.passage_writer, one)[0]) for one in questions)]

    def _of_query(self, collection: Collection, query_id: str, pool: tuple[str, ...]) -> Case:
        question = question_of(collection, query_id, ())
        return PooledCase(question, calls_of(self.writer, question)[0], None, pool)
