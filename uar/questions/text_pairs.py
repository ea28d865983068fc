"""Writers of texts with counterparts that look alike and are false: descriptions, and questions with hard negatives."""

from dataclasses import dataclass, replace
from typing import ClassVar

from uar.collections.languages import words_in
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import OnePrompt
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_text
from uar.questions.writer import Asked, bare, check_questions, read_questions

NEGATIVE_WORDS = 8  # at least, of a hard negative


@dataclass(frozen=True)
class DescriptionWriter(OnePrompt):
    """Two calls a passage: `number` abstract descriptions of it, by `template`, and as many that look like these and do not
    hold, by `misleading_template` (arXiv 2305.12517). Both prompts are given `passage` and `number`. The chain's value is what
    was `Asked`, each description with one of the misleading ones as long as there are some; without a description it is None.
    """

    variables = frozenset({"passage", "number"})
    rate = "write_descriptions"
    against: ClassVar[str] = "misleading"

    misleading_template: str = "write_misleading"
    number: int = 1
    question_tokens: int = 40

    @property
    def stages(self) -> tuple[str, ...]:
        return ("write_descriptions", "write_misleading")

    def asking(self, number: int, answers: bool) -> "DescriptionWriter":
        """As it is asked for `number` descriptions; they have no answers."""
        return replace(self, number=number)

    def prompts(self) -> tuple[str, ...]:
        """Hashes of its prompts."""
        return self.prompt.hash, self._misleading.prompt.hash

    @property
    def _misleading(self) -> "DescriptionWriter":
        return replace(self, template=self.misleading_template)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template != self.misleading_template:
            self._misleading  # noqa: B018 whose prompt is read, so that a faulty one is refused

    def chain(self, question: Question) -> Chain:
        ((doc_id, text),) = question.passages.items()
        example = "\n".join(["a thing that does something to another one in a place"] * self.number)
        calls = []
        for stage, writer in zip(self.stages, (self, self._misleading), strict=True):
            messages = writer.prompt.render(passage=self.shown(text), number=self.number)
            request = self.generate(messages, self.number * self.question_tokens)
            calls.append(Call(stage, writer.prompt.name, writer.prompt.hash, (doc_id,), request, check_lines, example=example))
        valid, false = (read_lines_of(reply)[: self.number] for reply in (yield calls))
        false = [text for text in false if text not in valid]
        return [Asked(one, "", other) for one, other in zip(valid, [*false, *[""] * len(valid)], strict=False)] or None


@dataclass(frozen=True)
class HardWriter(OnePrompt):
    """One call a passage for `number` questions that take thinking, by `template`, and one a question for a passage that looks
    as if it answered it and does not, by `negative_template`, which is given `question` and `passage` (the idea is that of
    ReasonIR, arXiv 2504.20595). A question whose negative failed has none."""

    variables = frozenset({"passage", "number"})
    rate = "write_hard_questions"
    against: ClassVar[str] = "passages"

    negative_template: str = "write_hard_negative"
    number: int = 1
    question_tokens: int = 64
    negative_tokens: int = 160

    @property
    def stages(self) -> tuple[str, ...]:
        return ("write_hard_questions", "write_hard_negative")

    def asking(self, number: int, answers: bool) -> "HardWriter":
        """As it is asked for `number` questions; they have no answers."""
        return replace(self, number=number)

    def prompts(self) -> tuple[str, ...]:
        """Hashes of its prompts."""
        return self.prompt.hash, self._negative.prompt.hash

    @property
    def _negative(self) -> "NegativeWriter":
        return NegativeWriter(template=self.negative_template, max_words=self.max_words)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._negative  # noqa: B018 whose prompt is read, so that a faulty one is refused

    def chain(self, question: Question) -> Chain:
        ((doc_id, text),) = question.passages.items()
        prompt, stage = self.prompt, self.stages[0]
        request = self.generate(
            prompt.render(passage=self.shown(text), number=self.number), self.number * self.question_tokens
        )
        example = "\n".join(["why does what is told here come about in spite of what one would expect?"] * self.number)
        (reply,) = yield [Call(stage, prompt.name, prompt.hash, (doc_id,), request, check_questions, example=example)]
        asked = [one.question for one in read_questions(reply)[: self.number]]
        if not asked:
            return None
        prompt, stage = self._negative.prompt, self.stages[1]
        calls = []
        for one in asked:
            request = self.generate(prompt.render(question=as_material(one), passage=self.shown(text)), self.negative_tokens)
            calls.append(Call(stage, prompt.name, prompt.hash, (doc_id,), request, check_negative, example=example))
        replies = yield calls
        return [Asked(q, "", _negative_of(reply)) for q, reply in zip(asked, replies, strict=True)]


@dataclass(frozen=True)
class NegativeWriter(OnePrompt):
    """The prompt for hard negatives alone."""

    variables = frozenset({"question", "passage"})

    @property
    def stages(self) -> tuple[str, ...]:
        return ("write_hard_negative",)

    def chain(self, question: Question) -> Chain:
        raise TypeError("a hard negative is written for a question that HardWriter wrote")


def read_lines_of(reply: Reply) -> list[str]:
    """The lines of a reply without numbers, bullets and marks, each once. A line that the token limit cut is left out, and so
    is one that announces others."""
    if reply.outcome not in {Outcome.OK, Outcome.TRUNCATED}:
        return []
    lines = reply.text.splitlines()
    lines = lines if reply.outcome == Outcome.OK else lines[:-1]
    return list(dict.fromkeys(text for line in lines if (text := bare(line)) and not text.endswith(":")))


def check_lines(reply: Reply) -> Outcome:
    """Outcome of a reply that should hold texts, one a line."""
    outcome = check_text(reply)
    if outcome not in {Outcome.OK, Outcome.TRUNCATED}:
        return outcome
    return Outcome.OK if read_lines_of(reply) else Outcome.EMPTY if outcome == Outcome.OK else outcome


def check_negative(reply: Reply) -> Outcome:
    """Outcome of a reply that should be a passage; one that was cut counts as far as it goes."""
    outcome = check_text(reply)
    if outcome == Outcome.TRUNCATED:
        outcome = Outcome.OK
    short = words_in(reply.text, NEGATIVE_WORDS) < NEGATIVE_WORDS
    return Outcome.EMPTY if outcome == Outcome.OK and short else outcome


def _negative_of(reply: Reply) -> str:
    return " ".join(reply.text.split()) if check_negative(reply) == Outcome.OK else ""
