"""What is asked of the LLM for a query, and how its reply is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from uar.collections import Collection
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import OnePrompt
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_text, first_line

AROUND = " \"'`“”"
LABEL = re.compile(r"^\s*(?:search|query|search query|better query)\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True)
class QueryWriter(OnePrompt):
    """One call a query; the chain's value is the reply as one line, or its first line alone. A reply without a text fails, and
    one that was cut in its first line where that is all; any other may be cut. `stage`: of its calls in the store."""

    variables = frozenset({"query"})
    shows_images = True

    query_tokens: int = 96
    first_line: bool = False
    stage: str = "expand"

    @property
    def stages(self) -> tuple[str, ...]:
        return (self.stage,)

    def chain(self, question: Question) -> Chain:
        prompt = self.prompt
        passages = [self.shown(text) for text in question.passages.values()]
        messages = prompt.render(image=question.image, query=as_material(question.text), passages=passages)
        request = self.generate(messages, self.query_tokens)
        (reply,) = yield [Call(self.stage, prompt.name, prompt.hash, tuple(question.passages), request, self.check)]
        return self.read(reply.text) if self.check(reply) == Outcome.OK else None

    def read(self, text: str) -> str:
        return written_query(text) if self.first_line else written_text(text)

    def check(self, reply: Reply) -> Outcome:
        outcome = check_text(reply)
        if outcome == Outcome.TRUNCATED and not self.first_line:
            outcome = Outcome.OK
        return Outcome.EMPTY if outcome == Outcome.OK and not self.read(reply.text) else outcome


def written_text(text: str) -> str:
    """A reply as one line."""
    return " ".join(text.split()).strip(AROUND)


def written_query(text: str) -> str:
    """The query in a reply: its first line without a label and quotation marks."""
    return written_text(LABEL.sub("", first_line(text)))


def with_texts(collection: Collection, texts: Mapping[str, str]) -> Collection:
    """The collection with those queries alone, their texts changed: what a retriever that is to search them is given."""
    return replace(collection, queries={q: replace(collection.queries[q], text=text) for q, text in texts.items()})
