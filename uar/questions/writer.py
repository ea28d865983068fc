"""What is asked of the LLM, and how questions and their answers are read from its reply."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

from uar.collections.languages import words_in
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import OnePrompt
from uar.llm.record import Outcome, Reply
from uar.llm.replies import cut, unread

STAGE = "write_questions"
EXAMPLE, EXAMPLE_ANSWER = "what is told by the passage that stands above?", " | a thing of a few words"
LEAD = re.compile(r"^(?:[-*•>]+|[(（]?\d+[.):．）：、]|(?:questions?|q|问题|問題|問)\s*\d*\s*[.:)：）])\s*", re.IGNORECASE)
ANSWER = re.compile(r"^(?:answers?|a|答案|答)\s*\d*\s*[.:)：）]\s*", re.IGNORECASE)
QUOTES = "\"'*_`“”‘’„«»「」『』《》 \u3000"
MARKS = ("?", "？", "؟")  # the last two: Chinese and Japanese; Arabic, Persian and Urdu
WITH_ANSWER = re.compile(rf"(.*?[{''.join(MARKS)}])[{re.escape(QUOTES)}]*((?:[|:–—-]|[=-]?>|→)*)\s*(.*)")
LONGEST = 12  # words after a question that may be its answer where no bar or dash says so
LETTERS = 6  # that a token of an answer is taken to have, at most


class Asked(NamedTuple):
    """A question, or another text that is searched for; its answer, and a text that looks right beside it and is false. Both
    may be empty."""

    question: str
    answer: str = ""
    against: str = ""


@dataclass(frozen=True)
class QuestionWriter(OnePrompt):
    """One call a passage, which stands in the pool of a `Question` without text. The chain's value is what was `Asked`.

    `answers`: whether each question is written with its answer. The reply may end after so many different questions as
    were asked for, and at an answer of more letters than `answer_tokens` have, which runs on, as small models do, and is
    none. What a model writes after that is not read, so that a reply that was kept whole says the same."""

    variables = frozenset({"passage", "number", "answers"})
    rate = STAGE
    against: ClassVar[str] = ""  # what it writes beside each text: misleading ones, passages, or nothing

    number: int = 1
    question_tokens: int = 32
    answers: bool = False
    answer_tokens: int = 16

    def asking(self, number: int, answers: bool) -> "QuestionWriter":
        """As it is asked for `number` questions, with answers or without."""
        return replace(self, number=number, answers=answers)

    def prompts(self) -> tuple[str, ...]:
        """Hashes of its prompts."""
        return (self.prompt.hash,)

    @property
    def stages(self) -> tuple[str, ...]:
        return (STAGE,)

    def chain(self, question: Question) -> Chain:
        prompt = self.prompt
        (passage,) = question.passages.values()
        messages = prompt.render(passage=self.shown(passage), number=self.number, answers=self.answers)
        each = self.question_tokens + (self.answer_tokens if self.answers else 0)
        request = self.generate(messages, self.number * each, until=self.until)
        example = "\n".join([EXAMPLE + (EXAMPLE_ANSWER if self.answers else "")] * self.number)
        notes = self._notes if self.answers else None
        call = Call(
            STAGE, prompt.name, prompt.hash, tuple(question.passages), request, self._check, example=example, notes=notes
        )
        (reply,) = yield [call]
        return self._read(reply) or None

    @cached_property
    def until(self) -> str:
        """Matches a reply from its beginning to where it may end."""
        end, mark, before = r"\W*\w[^\n]*" if self.answers else r"[^\w\n]*", "".join(MARKS), ""
        for nth in range(self.number):
            other = "".join(f"(?!(?P=q{earlier}))" for earlier in range(nth))
            before += rf"(?>(?s:.*?)^{other}(?P<q{nth}>[^\n{mark}]*[{mark}]){end}\n)"
        runs_on = rf"|(?s:.*?)[{mark}][^\n]{{{LETTERS * self.answer_tokens},}}\S" if self.answers else ""
        return f"(?m:{before}{runs_on})"

    def _read(self, reply: Reply) -> list[Asked]:
        return read_questions(cut(reply, self.until), self.answers)[: self.number]

    def _check(self, reply: Reply) -> Outcome:
        return check_questions(reply, self.answers)

    def _notes(self, reply: Reply) -> Mapping[str, int]:
        return {"questions_without_answer": sum(not one.answer for one in self._read(reply))}


def check_questions(reply: Reply, answers: bool = False) -> Outcome:
    """Outcome of a reply that should hold questions. One that was cut at the token limit counts for the lines before."""
    if reply.outcome not in {Outcome.OK, Outcome.TRUNCATED}:
        return reply.outcome
    if read_questions(reply, answers):
        return Outcome.OK
    if reply.outcome == Outcome.TRUNCATED:
        return Outcome.TRUNCATED
    return unread(reply.text)


def read_questions(reply: Reply, answers: bool = False) -> list[Asked]:
    """The lines that end in a question mark, without numbers, bullets, marks and what else a model puts around them. With
    `answers`, what follows the question mark is the answer, else a next line that calls itself one; an answer that the token
    limit may have cut is dropped."""
    if reply.outcome not in {Outcome.OK, Outcome.TRUNCATED}:
        return []
    found: dict[str, str] = {}
    last = ""
    lines = reply.text.splitlines()
    for number, line in enumerate(lines, start=1):
        whole = reply.outcome == Outcome.OK or number < len(lines)
        line = bare(line)
        parts = WITH_ANSWER.fullmatch(line)
        if parts and (not parts[3] or (answers and (parts[2] or words_in(parts[3]) <= LONGEST))):
            last = parts[1]
            found.setdefault(last, _answer(parts[3]) if whole else "")
        elif answers and last and not found[last] and ANSWER.match(line) and whole:
            found[last] = _answer(line)
    return [Asked(question, answer) for question, answer in found.items()]


def _answer(text: str) -> str:
    return ANSWER.sub("", text.strip(QUOTES)).strip(QUOTES)


def bare(line: str) -> str:
    """A line without numbers, bullets, marks and what else a model puts around it."""
    before, line = "", line.strip(QUOTES)
    while line != before:
        before, line = line, LEAD.sub("", line).strip(QUOTES)
    return " ".join(line.split())
