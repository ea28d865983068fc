"""What is asked of the LLM, and how questions are read from its reply."""

import re
from dataclasses import dataclass

from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import OnePrompt
from uar.llm.record import Outcome, Reply
from uar.llm.replies import unread

STAGE = "write_questions"
EXAMPLE = "what is told by the passage that stands above?"
LEAD = re.compile(r"^(?:[-*•>]+|[(（]?\d+[.):．）：、]|(?:questions?|q|问题|問題|問)\s*\d*\s*[.:)：）])\s*", re.IGNORECASE)
QUOTES = "\"'*_`“”‘’„«»「」『』《》 \u3000"
MARKS = ("?", "？", "؟")  # the last two: Chinese and Japanese; Arabic, Persian and Urdu


@dataclass(frozen=True)
class QuestionWriter(OnePrompt):
    """One call a passage, which stands in the pool of a `Question` without text. The chain's value is its questions."""

    variables = frozenset({"passage", "number"})

    number: int = 1
    question_tokens: int = 32

    @property
    def stages(self) -> tuple[str, ...]:
        return (STAGE,)

    def chain(self, question: Question) -> Chain:
        prompt = self.prompt
        (passage,) = question.passages.values()
        messages = prompt.render(passage=self.shown(passage), number=self.number)
        request = self.generate(messages, self.number * self.question_tokens)
        example = "\n".join([EXAMPLE] * self.number)
        call = Call(STAGE, prompt.name, prompt.hash, tuple(question.passages), request, check_questions, example=example)
        (reply,) = yield [call]
        return read_questions(reply)[: self.number] or None


def check_questions(reply: Reply) -> Outcome:
    """Outcome of a reply that should hold questions. One that was cut at the token limit counts for the lines before."""
    if reply.outcome not in {Outcome.OK, Outcome.TRUNCATED}:
        return reply.outcome
    if read_questions(reply):
        return Outcome.OK
    if reply.outcome == Outcome.TRUNCATED:
        return Outcome.TRUNCATED
    return unread(reply.text)


def read_questions(reply: Reply) -> list[str]:
    """The lines that end in a question mark, without numbers, bullets, marks and what else a model puts around them."""
    if reply.outcome not in {Outcome.OK, Outcome.TRUNCATED}:
        return []
    lines = (_bare(line) for line in reply.text.splitlines())
    return list(dict.fromkeys(line for line in lines if line.endswith(MARKS)))


def _bare(line: str) -> str:
    before, line = "", line.strip(QUOTES)
    while line != before:
        before, line = line, LEAD.sub("", line).strip(QUOTES)
    return " ".join(line.split())
