"""Answers from passages, or without any, kept in the annotation store like any other call."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from uar.collections import Collection
from uar.errors import UserError
from uar.evaluation.rag.shown_passages import Passages
from uar.launch.bars import bar
from uar.llm.call import Asker, Call, Chain, Question
from uar.llm.chains import Chains
from uar.llm.models import LLM
from uar.llm.progress import Progress
from uar.llm.prompted import OnePrompt
from uar.llm.prompts import load_chat
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_answer, first_line
from uar.llm.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader(OnePrompt):
    """One call a question: its passages as they are given, then the question; a question without passages is asked with
    `closed_book_template`. The chain's value is a `Given`: the reply's first line, or all of it as one line."""

    variables = frozenset({"query", "passages"})
    shows_images = True

    closed_book_template: str = "rag_closed_book"
    answer_tokens: int = 24
    first_line: bool = True

    @property
    def stages(self) -> tuple[str, ...]:
        return ("rag",)

    @cached_property
    def cites(self) -> bool:
        """Whether its prompt shows passages under numbers such as [1], which answers may cite."""
        return any("[1]" in text for _, text in self.prompt.render(query="", passages=[""]))

    def chain(self, question: Question) -> Chain:
        query, passages = as_material(question.text), [self.shown(text) for text in question.passages.values()]
        if passages:
            prompt = self.prompt
            messages = prompt.render(image=question.image, query=query, passages=passages)
        else:
            prompt = load_chat(self.closed_book_template, frozenset({"query"}))
            messages = prompt.render(image=question.image, query=query)
        request = self.generate(messages, self.answer_tokens)
        (reply,) = yield [Call("rag", prompt.name, prompt.hash, tuple(question.passages), request, check_written)]
        outcome = check_answer(reply)
        if outcome != Outcome.OK:
            return Given("", outcome)
        text = first_line(reply.text) if self.first_line else " ".join(reply.text.split())
        return Given(text, Outcome.OK if text else Outcome.EMPTY)


class Given(NamedTuple):
    """An answer, and what became of it: an empty one is no failure of the call."""

    text: str
    outcome: Outcome


def check_written(reply: Reply) -> Outcome:
    """Like `check_answer`, for which an empty reply is a failure and here is none: an answer of nothing, which scores 0."""
    outcome = check_answer(reply)
    return Outcome.OK if outcome == Outcome.EMPTY else outcome


@dataclass(frozen=True)
class Asking:
    """Asks the LLM about questions of a collection; what the store holds is not asked. More than `max_failure_rate` of the
    calls of one asker surely failing is a UserError, with what was answered kept. `progress`: of all calls."""

    collection: Collection
    llm: LLM
    store: Store
    max_failure_rate: float = 1.0
    progress: Progress = field(default_factory=Progress)

    def __call__(self, asker: Asker, shown: Mapping[str, Passages]) -> dict[str, str]:
        """What the asker's chain made of each question; empty where the LLM returned nothing."""
        found = self.of(asker, self._questions(shown))
        return {q: str(found.get(q, "")) for q in shown}

    def of(self, asker: Asker, questions: Sequence[Question]) -> dict[str, Any]:
        """What the asker's chain made of each question that it made something of."""
        progress = Progress()  # of this asker alone, whose failures count
        chains = Chains(asker, self.store, self.collection.slug, [self.llm], self.max_failure_rate, progress=progress)
        found: dict[str, Any] = {}
        try:
            with bar("RAG", len(questions), "questions") as drawn:
                for question_id, result in chains.run(questions):
                    found[question_id] = result
                    total = progress.total
                    drawn.at(len(found), f"{total.asked:,} calls, {total.kept:,} from the store")
            return found
        finally:
            self.progress.add(progress)

    def failed(self, stages: Sequence[str]) -> int:
        """Replies so far that could not be used."""
        counts = [self.progress.stage(stage).outcomes for stage in stages]
        return sum(number for of_stage in counts for outcome, number in of_stage.items() if outcome != Outcome.OK)

    def answers(self, reader: Reader, shown: Mapping[str, Passages]) -> dict[str, Given]:
        """UserError where every answer fails too, with what was answered kept."""
        found = self.of(reader, self._questions(shown))
        failed = [q for q in shown if found[q].outcome not in (Outcome.OK, Outcome.EMPTY)]
        if failed:
            last = self.progress.failures[-1]
            log.warning(
                "%s: %d of %d answers failed and score 0; the last: %s: %r",
                self.collection.slug, len(failed), len(shown), last.outcome, last.output[:200],
            )  # fmt: skip
            if len(failed) == len(shown):
                raise UserError(
                    f"{self.collection.slug}: all {len(shown)} answers of {self.llm.name} failed; the last: {last.outcome}: "
                    f"{last.output[:200]!r}; see to rag.llm, or give rag=off"
                )
        return found

    def _questions(self, shown: Mapping[str, Passages]) -> list[Question]:
        queries = self.collection.queries
        return [Question(q, queries[q].text, passages, image=queries[q].image) for q, passages in shown.items()]
