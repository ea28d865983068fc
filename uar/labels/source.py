"""What a label source is given and what it gives."""

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from uar.acquisition.acquisition import no_pools
from uar.annotation.annotators import Judgement
from uar.collections import Collection
from uar.errors import UserError
from uar.labels.example_columns import positives_of, share_of_chances, utilities_of, weights_of
from uar.labels.examples import Example
from uar.losses import Loss, name_of, takes_chance, takes_utility, takes_weights
from uar.pools import PoolSource

log = logging.getLogger(__name__)
POSITIVES = ("one", "average", "all")


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
        weights = weights_of(self.examples)
        odd = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
        if len(odd):
            wrong = self.examples[int(odd[0])]
            raise UserError(
                f"stage {self.name}: query {wrong.query_id!r} has weight={wrong.weight}; a finite number from 0 on is needed"
            )
        if len(weights) and not self.heaviest:
            raise UserError(f"stage {self.name}: all {len(self.examples)} queries have weight 0; give one of them more")

    @property
    def heaviest(self) -> float:
        """The greatest weight of a query."""
        return float(weights_of(self.examples).max(initial=0.0))

    @property
    def most_positives(self) -> int | None:
        """How many positives of a query are learnt at once; None for all."""
        if self.positives == "average":
            return max(1, round(int(positives_of(self.examples).sum()) / len(self.examples)))
        return 1 if self.positives == "one" else None

    def check(self, loss: Loss) -> None:
        """UserError where `loss`, of this stage or of the run, needs what the labels have not got."""
        loss = self.loss or loss
        if takes_utility(loss):
            self._check_utilities(loss)
        if takes_chance(loss):
            self._check_chances(loss)
        weights = weights_of(self.examples)
        if not takes_weights(loss) and len(np.unique(weights[weights > 0])) > 1:
            raise UserError(
                f"loss={name_of(loss)} has no argument weights, and the queries of stage {self.name} have different ones; "
                "give the function weights and hand them to mean_over_targeted, or use loss=summed_marginal"
            )

    def _check_utilities(self, loss: Loss) -> None:
        """UserError where no query has utilities; else say how many have none."""
        without = int((utilities_of(self.examples) == 0).sum())
        if without == len(self.examples):
            raise UserError(
                f"loss={name_of(loss)} needs graded or soft labels, and those of stage {self.name} say only yes or no; use "
                "label_source=qa_metric, label_source=clicks, or an annotator with scores (likelihood, pointwise), "
                "or loss=summed_marginal"
            )
        if without:
            line = "Stage %s: %d of %d queries have no graded or soft labels, and loss=%s learns nothing of them"
            log.warning(line, self.name, without, len(self.examples), name_of(loss))

    def _check_chances(self, loss: Loss) -> None:
        """UserError where the utilities are no probabilities; else say how much is surely useless, to a loss with `below`."""
        given = inspect.signature(loss).parameters.get("below")
        below = given.default if given and isinstance(given.default, int | float) else None
        useless = share_of_chances(self.examples, below or 0.0)
        if useless is None:
            raise UserError(
                f"loss={name_of(loss)} needs to know how probably a passage is useful, and the utilities of stage {self.name} "
                "are none or no probabilities; use combine=learned, annotator=pointwise or the votes of annotator=ensemble"
            )
        if below is not None:
            line = "Stage %s: loss=%s: %.0f %% of the negatives are surely useless (a probability up to %g)"
            log.info(line, self.name, name_of(loss), 100 * useless, below)


@dataclass(frozen=True)
class LabelContext:
    """`pools`: candidate passages of some queries; `judgements`: the LLM's, by query, or a UserError that holds the
    command which makes them. Both are functions, since not every source needs them. `query_ids`: the queries of the run.
    `unaware`: pools that know nothing of people's judgements, for who chooses whom people judge."""

    collection: Collection
    query_ids: Sequence[str]
    pools: Callable[[Sequence[str]], Mapping[str, Sequence[str]]] = field(repr=False)
    judgements: Callable[[], Mapping[str, Sequence[Judgement]]] = field(repr=False)
    seed: int
    unaware: Callable[[Sequence[str]], Mapping[str, Sequence[str]]] = field(default=no_pools, repr=False)


class LabelSource(ABC):
    """Labels to train on, as the stages of a curriculum."""

    @abstractmethod
    def stages(self, context: LabelContext) -> list[Stage]:
        """At least one stage with at least one example; UserError where there is nothing to learn from."""
