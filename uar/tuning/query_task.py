"""Texts that are written for queries, with which they are searched."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uar.collections import Collection
from uar.collections.languages import head
from uar.errors import UserError
from uar.expansion.query_texts import QueryWriter
from uar.llm.call import Asker
from uar.llm.pooled import question_of
from uar.tuning.task import Case, Task, calls_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryTask(Task):
    """`writer`, `join`, `repeat` and `query_length` are those of `expand=`. `passage_words`: a right reply is the beginning of
    a passage that people judged positive, so many words of it; None: there is no right reply, only better ones. What is made
    of a reply is the text that is searched with."""

    writer: QueryWriter
    join: str = "append"
    repeat: int | None = None
    query_length: int | None = None
    passage_words: int | None = None
    depth: int = 0
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.passage_words is not None and self.passage_words < 1:
            raise UserError(f"task.passage_words={self.passage_words}: at least 1 is needed, or null for no right reply")

    @property
    def idle(self) -> frozenset[str]:
        return frozenset({"task.depth", "task.shuffle"})

    @property
    def asker(self) -> Asker:
        return self.writer

    def cases(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> list[Case]:
        judged = [q for q in pools if collection.trainable(q)]
        if not judged:
            raise UserError(f"{collection.reference}: no question has a positive passage; give a split with judgements")
        if without := len(pools) - len(judged):
            line = "%s: %d of %d questions have no positive passage and are left out"
            log.info(line, collection.slug, without, len(pools))
        return [self._case(collection, q) for q in judged]

    def _case(self, collection: Collection, query_id: str) -> Case:
        question = question_of(collection, query_id, ())
        (call,) = calls_of(self.writer, question)
        return Case(question, call, self._target(collection, query_id))

    def _target(self, collection: Collection, query_id: str) -> str | None:
        if self.passage_words is None:
            return None
        corpus = collection.corpus
        return " ".join(head(corpus.text(corpus.row(collection.trainable(query_id)[0])), self.passage_words).split())
