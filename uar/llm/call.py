"""What is asked about one question: its material, and the chain of calls that an asker makes of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from uar.collections.images import Image
from uar.llm.record import Outcome, Reply, Request


@dataclass(frozen=True)
class Question:
    """One question with the passages that are shown. `passages`: texts by passage id, in the order shown. `image`: shown with
    the text, by askers of `shows_images`."""

    id: str
    text: str
    passages: dict[str, str]
    answers: tuple[str, ...] = ()
    image: Image | None = None


@dataclass(frozen=True)
class Call:
    """One thing to ask: the request, and a check that names the outcome of its reply.

    `example`: what a reply may look like, for dry runs. `llm`: which of the run's models is asked, from 0. `notes`: what is
    counted of a good reply beside its outcome, by name.
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
    notes: Callable[[Reply], Mapping[str, int]] | None = None


Chain = Generator[list[Call], list[Reply], Any]


@dataclass(frozen=True)
class Asker(ABC):
    """Makes the chain of a question: a generator that yields lists of calls, is sent their replies, and returns its result,
    or None where a failed reply leaves nothing to say. `rate`: a name under which the tokens a second of a model are kept
    apart, where they are not those of most askers."""

    needs_llm = True
    shows_images = False  # whether its calls show a question's image
    rate: ClassVar[str] = ""

    @property
    @abstractmethod
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in the order of the chain."""

    @abstractmethod
    def chain(self, question: Question) -> Chain:
        """The calls of one question."""


Item = Mapping[str, Any]  # of a question, in values that can be pickled


class Questions(Protocol):
    """Questions with their material, read when they are iterated. `name`: of the collection, in records."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Question]: ...

    def items(self) -> Iterator[Item]:
        """One a question."""

    def opener(self) -> Callable[[], Callable[[Sequence[Item]], "Questions"]]:
        """What another process calls once, for a function that makes questions of some items. It can be pickled."""
