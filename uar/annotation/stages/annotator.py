"""What an annotator is: a chain of calls a question, and the judgements that its replies give."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uar.annotation.record import Outcome, Record, Reply, Request

MAX_WORDS = 300  # a passage is cut here before it is shown, as in the paper


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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an annotator says of one passage: label 0/1, a grade, a score where the method has one, a rank from 1.

    `uncertainty`: from 0 (sure) up, where the method knows it. `logprobs`: of each grade from the lowest up, in nat.
    """

    doc_id: str
    label: int
    grade: int
    score: float | None
    rank: int
    uncertainty: float | None = None
    logprobs: tuple[float, ...] = ()


Chain = Generator[list[Call], list[Reply], Any]


@dataclass(frozen=True)
class Annotator(ABC):
    """`chain` yields lists of calls, is sent their replies, and returns judgements of the whole pool, or None where a
    reply failed, so that a failure never becomes a label."""

    template: str = field(kw_only=True)
    max_words: int = field(default=MAX_WORDS, kw_only=True)

    @property
    @abstractmethod
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in the order of the chain; the first one shows the whole pool."""

    @property
    @abstractmethod
    def first_prompt_hash(self) -> str:
        """Hash of the prompt of the first stage: records of other wordings are not this annotator's."""

    @property
    def needs_gold_answers(self) -> bool:
        """Whether a question without gold answers cannot be annotated."""
        return False

    def annotated_pools(self, records: Iterable[Record]) -> dict[str, list[str]]:
        """Passage ids a query that records of the first stage show as annotated; of several pools the latest."""
        return {r.query_id: list(r.doc_ids) for r in records}

    @abstractmethod
    def chain(self, question: Question) -> Chain:
        """The calls of one question."""

    def shown(self, text: str) -> str:
        """A passage as it is shown."""
        words = text.split()
        return text if len(words) <= self.max_words else " ".join(words[: self.max_words])


def ranked_judgements(
    order: Sequence[str], grades: dict[str, int], scores: Mapping[str, float], positive: int
) -> list[Judgement]:
    """Judgements in rank order; label 1 from grade `positive` up."""
    return [Judgement(d, int(grades[d] >= positive), grades[d], scores.get(d), rank) for rank, d in enumerate(order, start=1)]
