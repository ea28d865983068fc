"""Texts that are written for queries and for the passages of their pools, which are searched with each other."""

from dataclasses import dataclass, field
from typing import ClassVar

from uar.collections import Collection
from uar.expansion.query_texts import QueryWriter
from uar.llm.call import Asker
from uar.llm.pooled import question_of
from uar.tuning.passage_task import PassageTask, Pools
from uar.tuning.task import Case, calls_of


@dataclass(frozen=True)
class PooledCase(Case):
    """Of a query. `pool`: ids of the passages among which it is searched."""

    pool: tuple[str, ...] = ()


@dataclass(frozen=True)
class CoAugmentationTask(PassageTask):
    """One case a query too (co-augmentation, arXiv 2506.18670). `writer`, `join`, `repeat` and `query_length` are those of
    `expand=`. What is made of a reply to a query's case is the text that joins the query."""

    writer: QueryWriter = field(kw_only=True)
    join: str = "append"
    repeat: int | None = None
    query_length: int | None = None

    name: ClassVar[str] = "co_augmentation"

    @property
    def asker(self) -> Asker:
        return self.writer

    def asker_of(self, case: Case) -> Asker:
        return self.writer if isinstance(case, PooledCase) else self.passage_writer

    def _cases(self, collection: Collection, pools: Pools) -> list[Case]:
        return [*(self._of_query(collection, q, pool) for q, pool in pools.items()), *super()._cases(collection, pools)]

    def _of_query(self, collection: Collection, query_id: str, pool: tuple[str, ...]) -> Case:
        question = question_of(collection, query_id, ())
        return PooledCase(question, calls_of(self.writer, question)[0], None, pool)
