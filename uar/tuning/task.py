"""What an LLM is tuned for: a prompt that is asked elsewhere, and what a right reply to it is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from uar.collections import Collection
from uar.errors import UserError
from uar.llm.call import Asker, Call, Question
from uar.llm.record import Choose, Generate, Outcome, Reply, Score
from uar.llm.replies import unread

CHOICE_TOKENS = 4
NEVER = -1e9  # nat, of what was not chosen


@dataclass(frozen=True)
class Case:
    """One call that is learned. `target`: a right reply to it; None where none is known."""

    question: Question
    call: Call
    target: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """What the reply chooses from; nothing where it is a text."""
        return self.call.request.choices if isinstance(self.call.request, Choose) else ()

    def written(self, temperature: float = 0.0, sample: int = 0) -> Call:
        """The call with a reply that is written, also of a choice, and drawn where `temperature` is above 0."""
        request = self.call.request
        if isinstance(request, Score):
            raise UserError(
                "a log-likelihood is asked for, and no reply written that could be tuned; choose another annotator"
            )
        if isinstance(request, Choose):
            asked = Generate(request.messages, CHOICE_TOKENS, temperature, sample=sample, reasoning=request.reasoning)
            return replace(self.call, request=asked, check=partial(check_choice, request.choices))
        return replace(self.call, request=replace(request, temperature=temperature, sample=sample))


class Rolled(NamedTuple):
    """A case, a reply to it, and what was made of the reply: None of one that failed."""

    case: Case
    reply: Reply
    value: Any


class Task(ABC):
    """What `task=NAME` instantiates. `depth`: passages that a question is shown with; 0 for none."""

    depth: int

    @property
    def idle(self) -> frozenset[str]:
        """Options of the command that a task of this kind could read and this one does not."""
        return frozenset()

    @property
    @abstractmethod
    def asker(self) -> Asker:
        """Who asks, as elsewhere in the package."""

    @abstractmethod
    def cases(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> list[Case]:
        """Of the questions of `pools`, with the passages that they have there. UserError where there is none."""

    def asker_of(self, case: Case) -> Asker:
        """Who asks this case, where there are several who do."""
        return self.asker

    def value(self, case: Case, reply: Reply, written: bool = True) -> Any:
        """What the asker makes of a reply; None where it cannot be read. `written`: whether it is one to `Case.written`, or to
        the call as it is."""
        call = case.written() if written else case.call
        if call.check(reply) != Outcome.OK:
            return None
        if case.choices and written:
            reply = Reply.of_choices({c: 0.0 if c == reply.text.strip() else NEVER for c in case.choices})
        return concluded(self.asker_of(case), case.question, reply)


def calls_of(asker: Asker, question: Question) -> list[Call]:
    """The first calls of a chain, which have to be all. UserError where others follow."""
    if len(asker.stages) > 1:
        raise _asks_several(asker)
    return list(next(asker.chain(question)))


def concluded(asker: Asker, question: Question, reply: Reply) -> Any:
    """What a chain of one call returns for a reply. UserError where it asks more."""
    chain = asker.chain(question)
    next(chain)
    try:
        chain.send([reply])
    except StopIteration as end:
        return end.value
    raise _asks_several(asker)


def _asks_several(asker: Asker) -> UserError:
    return UserError(f"{type(asker).__name__} asks several calls one after the other; what asks one call can be tuned")


def check_choice(choices: Sequence[str], reply: Reply) -> Outcome:
    """Outcome of a written choice: it must be one of the choices and nothing else."""
    if reply.text.strip() in choices:
        return Outcome.OK  # also where it was cut after it
    return reply.outcome if reply.outcome not in {Outcome.OK, Outcome.TRUNCATED} else unread(reply.text)
