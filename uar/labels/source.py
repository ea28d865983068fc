"""What a label source is given and what it gives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from uar.annotation.stages import Judgement
from uar.collections import Collection
from uar.errors import UserError


@dataclass(frozen=True)
class Example:
    """A query with its positives (best first) and negatives; `source` says who called the positives so."""

    query_id: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Stage:
    """One stage of training. `positives`: `one` a query, drawn each epoch, or `all` of them."""

    name: str
    examples: Sequence[Example]
    epochs: int
    positives: str

    def __post_init__(self) -> None:
        if self.positives not in {"one", "all"}:
            raise UserError(f"positives={self.positives!r}; allowed: one, all")
        if self.epochs < 1:
            raise UserError(f"epochs={self.epochs}: at least 1 is needed")


@dataclass(frozen=True)
class LabelContext:
    """`pools`: candidate passages of some queries; `judgements`: the LLM's, by query, or a UserError that holds the
    command which makes them. Both are functions, since not every source needs them. `query_ids`: the queries of the run."""

    collection: Collection
    query_ids: Sequence[str]
    pools: Callable[[Sequence[str]], Mapping[str, Sequence[str]]] = field(repr=False)
    judgements: Callable[[], Mapping[str, Sequence[Judgement]]] = field(repr=False)
    seed: int


class LabelSource(ABC):
    """Labels to train on, as the stages of a curriculum."""

    @abstractmethod
    def stages(self, context: LabelContext) -> list[Stage]:
        """At least one stage with at least one example; UserError where there is nothing to learn from."""
