"""Texts that are written for passages, which are searched with them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from uar.collections import Collection
from uar.errors import UserError
from uar.expansion.by_llm import writer_of
from uar.expansion.passage_texts import Passages, PassageWriter
from uar.llm.call import Asker
from uar.tuning.task import Case, Task, calls_of

log = logging.getLogger(__name__)
Pools = Mapping[str, tuple[str, ...]]  # passage ids by query id


@dataclass(frozen=True)
class PassageCase(Case):
    """Of a passage. `pools`: those that hold it."""

    pools: Pools = field(default_factory=dict)


@dataclass(frozen=True)
class PassageTask(Task):
    """One case a passage of the pools. `documents` and `document_writer` are those of `expand=`. There is no right reply, only
    better ones. What is made of a reply is the text that joins its passage."""

    documents: str | None
    document_writer: Mapping[str, Any] = field(default_factory=dict)
    depth: int = 8
    shuffle: bool = False

    name: ClassVar[str] = "passage_expansion"

    def __post_init__(self) -> None:
        if self.depth < 2:
            raise UserError(f"task.depth={self.depth}: at least 2 passages a question are needed, one of which can be better")
        self.passage_writer  # noqa: B018 a prompt that cannot be read is refused before anything is asked

    @cached_property
    def passage_writer(self) -> PassageWriter:
        found = writer_of(self.documents, self.document_writer)
        if found is None:
            raise UserError(
                f"task={self.name}: nothing is written for passages; give expand.documents=keywords, abstract or questions"
            )
        return found

    @property
    def idle(self) -> frozenset[str]:
        return frozenset({"task.shuffle"})

    @property
    def asker(self) -> Asker:
        return self.passage_writer

    def cases(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> list[Case]:
        judged = {q: tuple(pool) for q, pool in pools.items() if len(pool) > 1 and collection.trainable(q)}
        if not judged:
            raise UserError(
                f"{collection.reference}: no question has a positive passage and others in its pool; give a split with "
                "judgements, or more candidates"
            )
        if without := len(pools) - len(judged):
            line = "%s: %d of %d questions have no positive passage, or no other in their pool, and are left out"
            log.info(line, collection.slug, without, len(pools))
        return self._cases(collection, judged)

    def _cases(self, collection: Collection, pools: Pools) -> list[Case]:
        holding: dict[str, dict[str, tuple[str, ...]]] = {}
        for query_id, pool in pools.items():
            for doc_id in pool:
                holding.setdefault(doc_id, {})[query_id] = pool
        questions = Passages(collection.slug, collection.reference, collection.corpus, list(holding))
        return [PassageCase(one, calls_of(self.passage_writer, one)[0], None, holding[one.id]) for one in questions]
