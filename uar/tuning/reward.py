"""What a reply is worth: a number of each, by one or several rewards."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

from uar.collections import Collection
from uar.errors import UserError
from uar.expansion.passage_texts import corpus_of_each
from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.tuning.task import Case, Rolled, Task

FAILED = 0.0  # of a reply that cannot be read


@dataclass(frozen=True)
class Reward(ABC):
    """What `reward=NAME` instantiates. `weight`: of its value in the sum of all rewards."""

    weight: float = field(default=1.0, kw_only=True)

    together: ClassVar[bool] = False  # whether what a reply is worth hangs on the replies to other cases

    @abstractmethod
    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        """UserError where it cannot say anything of replies to these."""

    @abstractmethod
    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        """Of replies that can be read, in their order."""

    def opened(self, session: Session) -> "Reward":
        """For the length of a session, which holds models and indexes."""
        return self


@dataclass(frozen=True)
class RankingReward(Reward):
    """`retriever`: ranks with what is written. An encoder encodes the passages once."""

    retriever: Ranker

    def opened(self, session: Session) -> "Reward":
        opened = replace(self)
        object.__setattr__(opened, "_session", session)
        return opened

    @property
    def session(self) -> Session:
        session: Session = self.__dict__["_session"]
        return session

    @contextmanager
    def corpus_of_each(
        self, collection: Collection, texts: Mapping[str, Sequence[str]], before: bool, plain: bool = False
    ) -> Iterator[Collection]:
        """The collection with passages as `corpus_of_each` makes them, which nothing is left of after the block."""
        with corpus_of_each(collection.corpus, texts, before, plain) as corpus:
            try:
                yield replace(collection, corpus=corpus)
            finally:
                self.session.release(corpus)

    def refuse_fusion(self, name: str) -> None:
        """UserError where what a passage is worth hangs on the other passages that are scored with it."""
        if self.retriever.fuses:
            raise UserError(
                f"{self.retriever.name}: what it makes of a passage hangs on all others; give another one with reward={name}"
            )


@dataclass(frozen=True)
class Rewards:
    """The weighted sum of `parts`, by their names. A reply that cannot be read has `FAILED`, whatever its parts would say."""

    parts: Mapping[str, Reward]

    def __bool__(self) -> bool:
        return bool(self.parts)

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        for name, part in self.parts.items():
            if part.weight < 0:
                raise UserError(
                    f"reward {name}: weight={part.weight}: below 0 a reply that cannot be read would be the better one"
                )
            part.check(task, collection, cases)

    def opened(self, session: Session) -> "Rewards":
        return Rewards({name: part.opened(session) for name, part in self.parts.items()})

    def each(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> dict[str, list[float]]:
        """Values by reward, in the order of `rolled`."""
        readable = [one for one in rolled if one.value is not None]
        found = {}
        for name, part in self.parts.items():
            values = iter(part.values(task, collection, readable) if readable else [])
            found[name] = [FAILED if one.value is None else next(values) for one in rolled]
        return found

    def total(self, each: Mapping[str, Sequence[float]]) -> list[float]:
        """From the values of `each`."""
        weights = [part.weight for part in self.parts.values()]
        return [sum(w * v for w, v in zip(weights, row, strict=True)) for row in zip(*each.values(), strict=True)]


def no_gold(name: str, collection: Collection, what: str, remedy: str) -> UserError:
    return UserError(f"reward={name}: {collection.reference} has no {what}, so no reply can be told from another; {remedy}")
