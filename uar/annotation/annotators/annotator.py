"""What an annotator is: a chain of calls a question, and the judgements that its replies give."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

from uar.annotation.judgement import Judged, Judgement
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.prompts import ChatPrompt, load_chat
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Generate, Messages, Outcome, Reply, Request

HAN_OR_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{HAN_OR_KANA}]|[^\s{HAN_OR_KANA}]+")
MAX_WORDS = 300  # a passage is cut here before it is shown, as in the paper
REASONING_TOKENS = 2_048


@dataclass(frozen=True)
class Question:
    """One question with the pool that is shown. `passages`: texts by passage id, in the order shown."""

    id: str
    text: str
    passages: dict[str, str]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """One thing to ask: the request, and a check that names the outcome of its reply.

    `example`: what a reply may look like, for dry runs. `llm`: which of the run's models is asked, from 0.
    """

    stage: str
    template: str
    template_hash: str
    doc_ids: tuple[str, ...]
    request: Request
    check: Callable[[Reply], Outcome]
    layout: str = "paper"
    example: str = ""
    llm: int = 0


Chain = Generator[list[Call], list[Reply], Any]
Shown = Iterable[tuple[str, Sequence[str]]]  # query id, passage ids


@dataclass(frozen=True)
class Annotator(ABC):
    """`chain` yields lists of calls, is sent their replies, and returns judgements of the pool, without the passages whose own
    call failed, or None where nothing can be said of the question, so that a failure never becomes a label."""

    needs_llm = True
    needs_gold_answers = False  # whether a question without gold answers cannot be annotated
    can_sample = False  # whether asking it again at a temperature may give another judgement

    @property
    @abstractmethod
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in the order of the chain; the first one shows the whole pool."""

    @property
    @abstractmethod
    def first_prompt_hash(self) -> str:
        """Hash of the prompt of the first stage: records of other wordings are not this annotator's."""

    @property
    def stage_grades(self) -> dict[str, int]:
        """The grade from which each selecting stage took a passage; empty where one stage gives the labels."""
        return {}

    @property
    def grades(self) -> tuple[int, int] | None:
        """The lowest and the highest grade that it gives, where it has a scale of its own."""
        return None

    def annotated_pools(self, shown: Shown) -> dict[str, list[str]]:
        """Passage ids a query that the first stage has shown; of several pools the latest."""
        return {query_id: list(doc_ids) for query_id, doc_ids in shown}

    def own_pools(self, collection: Collection) -> dict[str, list[str]] | None:
        """Passage ids a query where the annotator, not the candidates, says what is judged."""
        return None

    @abstractmethod
    def chain(self, question: Question) -> Chain:
        """The calls of one question."""

    def finish(self, collection: Collection, judged: Judged, seed: int) -> tuple[Judged, dict[str, Any] | None]:
        """What all judgements together allow, such as calibration: the final judgements, and what is told of it."""
        return judged, None


@dataclass(frozen=True)
class Prompted(Annotator):
    """An annotator with a prompt of its own: a packaged name or a YAML file. A passage is cut at `max_words`."""

    template: str = field(kw_only=True)
    max_words: int = field(default=MAX_WORDS, kw_only=True)

    def cut(self, text: str) -> str:
        """A passage as it is shown, at most `max_words` long. Chinese and Japanese have no spaces: each
        of their characters counts as a word."""
        if len(text) <= self.max_words:
            return text
        words = list(islice(WORD.finditer(text), self.max_words + 1))
        if len(words) <= self.max_words:
            return text
        return " ".join(text[: words[-1].start()].split())

    def shown(self, text: str) -> str:
        """A passage as a chat shows it: one line that cannot be taken for a part of the protocol."""
        return as_material(self.cut(text))


@dataclass(frozen=True)
class Chatting(Prompted):
    """An annotator that has text written. `sample` is the seed where `temperature` is above 0. `reasoning`: true or false
    for models that think before they answer, null for what their chat template does."""

    can_sample = True

    temperature: float = field(default=0.0, kw_only=True)
    sample: int = field(default=0, kw_only=True)
    reasoning: bool | None = field(default=None, kw_only=True)
    reasoning_tokens: int = field(default=REASONING_TOKENS, kw_only=True)

    def generate(self, messages: Messages, tokens: int, pattern: str | None = None) -> Generate:
        """Write at most `tokens`, following `pattern` where the engine can."""
        thinking = self.reasoning_tokens if self.reasoning else 0
        return Generate(messages, tokens, self.temperature, pattern, self.sample, self.reasoning, thinking)


@dataclass(frozen=True)
class OnePrompt(Chatting):
    """`variables`: what its one prompt is supplied with. Prompts are read when an annotator is made, and stay."""

    variables: ClassVar[frozenset[str]]

    def __post_init__(self) -> None:
        self.prompt  # noqa: B018 one that cannot be read is told before anything is asked

    @cached_property
    def prompt(self) -> ChatPrompt:
        return load_chat(self.template, self.variables)

    @property
    def first_prompt_hash(self) -> str:
        return self.prompt.hash


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """UserError where an option has a value that it does not know."""
    if value not in allowed:
        raise UserError(f"annotator.{name}={value!r}; allowed: {', '.join(allowed)}")


def ranked_judgements(
    order: Sequence[str], grades: Mapping[str, int], scores: Mapping[str, float], positive: int
) -> list[Judgement]:
    """Judgements in rank order; label 1 from grade `positive` up."""
    return [Judgement(d, int(grades[d] >= positive), grades[d], scores.get(d), rank) for rank, d in enumerate(order, start=1)]
