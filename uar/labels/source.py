"""What a label source is given and what it gives."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from uar.annotation.annotators import Judgement
from uar.collections import Collection
from uar.errors import UserError
from uar.losses import Loss, name_of, takes_utility, takes_weights
from uar.pools import PoolSource

POSITIVES = ("one", "average", "all")


class Pair(NamedTuple):
    """A passage of a query: label 1 or 0, who said so, and its utility where there is one."""

    doc_id: str
    label: int
    source: str
    utility: float | None


@dataclass(frozen=True)
class Example:
    """A query with its positives (best first) and negatives; `source` says who called them so.

    `sources` and `utility` go with positives + negatives, one entry each, or are empty: all from `source`, no utilities.
    `ignored` are passages that may be positive and are not learnt from: never a negative of the query.
    `weight` is the query's in the loss, beside those of the other queries of its batch: 0 or more, 0 leaves the query out.
    """

    query_id: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    source: str
    sources: tuple[str, ...] = ()
    utility: tuple[float | None, ...] = ()
    ignored: tuple[str, ...] = ()
    weight: float = 1.0

    def pairs(self) -> Iterator[Pair]:
        """Positives, then negatives."""
        docs = self.positives + self.negatives
        sources = self.sources or (self.source,) * len(docs)
        for at, (doc_id, source) in enumerate(zip(docs, sources, strict=True)):
            yield Pair(doc_id, int(at < len(self.positives)), source, self.utility[at] if self.utility else None)

    def utilities(self) -> dict[str, float]:
        """Of the passages that have one."""
        return {p.doc_id: p.utility for p in self.pairs() if p.utility is not None} if self.utility else {}


def example_of(query_id: str, pairs: Sequence[Pair], source: str, ignored: Sequence[str] = (), weight: float = 1.0) -> Example:
    """An example of its pairs, positives before negatives, each in the order given."""
    ordered = sorted(pairs, key=lambda p: -p.label)
    positives = tuple(p.doc_id for p in ordered if p.label)
    return Example(
        query_id,
        positives,
        tuple(p.doc_id for p in ordered[len(positives) :]),
        source,
        tuple(p.source for p in ordered) if any(p.source != source for p in ordered) else (),
        tuple(p.utility for p in ordered) if any(p.utility is not None for p in ordered) else (),
        tuple(ignored),
        weight,
    )


@dataclass(frozen=True)
class Stage:
    """One stage of training; what is None is as in the rest of the run.

    `positives`: `one` a query, drawn each epoch, `average`, the stage's mean number of positives, or `all` of them.
    `candidates`: where the negatives are looked up again before the stage; a dense source does so with the model of then.
    `steps`: of the optimizer, in the place of `epochs`.
    """

    name: str
    examples: Sequence[Example]
    epochs: int
    positives: str
    learning_rate: float | None = None
    warmup: float | None = None
    loss: Loss | None = None
    batch_size: int | None = None
    passages_per_query: int | None = None
    candidates: PoolSource | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.positives not in POSITIVES:
            raise UserError(f"positives={self.positives!r}; allowed: {', '.join(POSITIVES)}")
        for name in ("epochs", "batch_size", "passages_per_query", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"stage {self.name}: {name}={value}: at least 1 is needed")
        wrong = next((e for e in self.examples if not 0 <= e.weight < math.inf), None)
        if wrong is not None:
            raise UserError(
                f"stage {self.name}: query {wrong.query_id!r} has weight={wrong.weight}; a finite number from 0 on is needed"
            )
        if self.examples and not self.heaviest:
            raise UserError(f"stage {self.name}: all {len(self.examples)} queries have weight 0; give one of them more")

    @property
    def heaviest(self) -> float:
        """The greatest weight of a query."""
        return max((e.weight for e in self.examples), default=0.0)

    @property
    def most_positives(self) -> int | None:
        """How many positives of a query are learnt at once; None for all."""
        if self.positives == "average":
            return max(1, round(sum(len(e.positives) for e in self.examples) / len(self.examples)))
        return 1 if self.positives == "one" else None

    def check(self, loss: Loss) -> None:
        """UserError where `loss`, of this stage or of the run, needs what the labels have not got."""
        loss = self.loss or loss
        if takes_utility(loss) and not any(e.utility for e in self.examples):
            raise UserError(
                f"loss={name_of(loss)} needs graded or soft labels, and those of stage {self.name} say only yes or no; use "
                "label_source=qa_metric, label_source=clicks, or an annotator with scores (likelihood, pointwise), "
                "or loss=summed_marginal"
            )
        if not takes_weights(loss) and len({e.weight for e in self.examples if e.weight}) > 1:
            raise UserError(
                f"loss={name_of(loss)} has no argument weights, and the queries of stage {self.name} have different ones; "
                "give the function weights and hand them to mean_over_targeted, or use loss=summed_marginal"
            )


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
