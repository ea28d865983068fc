"""Answers from passages, as the reader of RAG writes them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uar.collections import Collection
from uar.collections.answer_match import hold_answer
from uar.errors import UserError
from uar.evaluation.rag.rag_settings import check_shown
from uar.evaluation.rag.reader import Given, Reader
from uar.evaluation.rag.shown_passages import budgets, show
from uar.llm.call import Asker, Question
from uar.llm.record import Outcome, Reply
from uar.tuning.task import Case, Task, calls_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnswerTask(Task):
    """`reader` answers questions with gold answers from the passages of their pools; see `Settings` of RAG for the options of
    what is shown. `held`: only where one of the shown passages holds a gold answer. A right reply is the first gold answer;
    what is made of a reply is the answer in it."""

    reader: Reader
    depth: int = 5
    shuffle: bool = False
    order: str = "rank"
    max_words: int | None = None
    max_tokens: int | None = None
    tokenizer: str | None = None
    held: bool = False

    def __post_init__(self) -> None:
        check_shown(self.order, self.max_words, self.max_tokens)

    @property
    def asker(self) -> Asker:
        return self.reader

    def cases(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> list[Case]:
        answered = collection.answered(pools)
        if not answered:
            raise UserError(
                f"task=answer: {collection.reference} has no gold answers; give dataset.answers=FILE, or another dataset"
            )
        units = budgets(self.max_words, self.max_tokens, self.tokenizer)
        shown = show(collection, {q: pools[q] for q in answered}, self.order, self.reader.shown, units)
        queries = collection.queries
        kept = [q for q in answered if not self.held or any(hold_answer(tuple(shown[q].values()), queries[q].answers))]
        if not kept:
            raise UserError(
                f"task.held=true: no shown passage of {collection.reference} holds a gold answer; give more passages with "
                "rag.top_k, or task.held=false"
            )
        without = len(pools) - len(kept)
        if without:
            line = "%s: %d of %d questions have no gold answer%s and are left out"
            log.info(line, collection.slug, without, len(pools), " in the passages shown" if self.held else "")
        return [self._case(Question(q, queries[q].text, shown[q], queries[q].answers, queries[q].image)) for q in kept]

    def value(self, case: Case, reply: Reply, written: bool = True) -> str | None:
        given: Given | None = super().value(case, reply, written)
        return given.text if given is not None and given.outcome == Outcome.OK else None

    def _case(self, question: Question) -> Case:
        (call,) = calls_of(self.reader, question)
        return Case(question, call, question.answers[0])
