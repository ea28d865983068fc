"""Answers from passages, or without any, kept in the annotation store like any other call."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from uar.annotation.chains import Chains, Progress
from uar.annotation.engines import LLM
from uar.annotation.neutral import as_material
from uar.annotation.parsing import check_answer
from uar.annotation.prompts import load_chat
from uar.annotation.record import Outcome
from uar.annotation.stages import Annotator, Call, Question
from uar.annotation.stages.annotator import Chain, OnePrompt
from uar.annotation.store import Store
from uar.collections import Collection
from uar.evaluation.rag.passages import Passages


@dataclass(frozen=True)
class Reader(OnePrompt):
    """One call a question: its passages as they are given, then the question; a question without passages is asked with
    `closed_book_template`. The chain's value is the answer: the reply's first line, or all of it as one line."""

    variables = frozenset({"query", "passages"})

    closed_book_template: str = "rag_closed_book"
    answer_tokens: int = 24
    first_line: bool = True

    @property
    def stages(self) -> tuple[str, ...]:
        return ("rag",)

    def chain(self, question: Question) -> Chain:
        query, passages = as_material(question.text), [self.shown(text) for text in question.passages.values()]
        if passages:
            prompt = self.prompt
            messages = prompt.render(query=query, passages=passages)
        else:
            prompt = load_chat(self.closed_book_template, frozenset({"query"}))
            messages = prompt.render(query=query)
        request = self.generate(messages, self.answer_tokens)
        (reply,) = yield [Call("rag", prompt.name, prompt.hash, tuple(question.passages), request, check_answer)]
        if check_answer(reply) != Outcome.OK:
            return ""
        return first_line(reply.text) if self.first_line else " ".join(reply.text.split())


def first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""


@dataclass(frozen=True)
class Asking:
    """Asks the LLM about questions of a collection; what the store holds is not asked. `progress`: of all calls."""

    collection: Collection
    llm: LLM
    store: Store
    progress: Progress = field(default_factory=Progress)

    def __call__(self, annotator: Annotator, shown: Mapping[str, Passages]) -> dict[str, str]:
        """What the annotator's chain made of each question; empty where the LLM returned nothing."""
        queries = self.collection.queries
        chains = Chains(annotator, self.store, self.collection.slug, [self.llm], 1.0, progress=self.progress)
        found = dict.fromkeys(shown, "")
        for query_id, value in chains.run(Question(q, queries[q].text, passages) for q, passages in shown.items()):
            found[query_id] = str(value)
        return found
