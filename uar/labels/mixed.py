"""LLM labels for all queries, human labels for a share of them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from uar.acquisition import Acquisition, RandomAcquisition, UncertaintyAcquisition
from uar.errors import UserError
from uar.labels.equal_texts import with_shared_labels
from uar.labels.examples import Example, Pair, example_of
from uar.labels.human import AT_RANDOM, human_examples
from uar.labels.llm import llm_examples
from uar.labels.other_positives import check_rule, with_other_positives
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.losses import Loss

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixedLabels(LabelSource):
    """`strategy=curriculum` (arXiv 2504.05220): a stage on the LLM's labels, then one on the human labels of `human_frac` of
    the queries. `strategy=union`: one stage on both kinds of positives together.

    `human_frac` is a share of the split's queries with a human positive, whether annotated or not; 0 leaves the LLM alone, 1
    is a full second stage. `acquire` says which queries they are. `allocation` may name it instead: `random`, or `uncertainty`
    by the measure `uncertainty`, see `UncertaintyAcquisition`; None leaves it to `acquire`. `other_positives`: what the second
    stage makes of the LLM's positives that people did not name, see `with_other_positives`. `human_learning_rate` and
    `human_loss` are those of the second stage, None for the run's.
    """

    human_frac: float = 0.2
    strategy: str = "curriculum"
    acquire: Acquisition = AT_RANDOM
    allocation: str | None = None
    uncertainty: str = "auto"
    epochs: int = 1
    human_epochs: int = 1
    positives: str = "all"
    human_positives: str = "one"
    human_positive: str = "random"
    other_positives: str = "ignore"
    human_learning_rate: float | None = None
    human_loss: Loss | None = None

    def stages(self, context: LabelContext) -> list[Stage]:
        if self.strategy not in ("curriculum", "union"):
            raise UserError(f"label_source.strategy={self.strategy!r}; allowed: curriculum, union")
        check_rule(self.other_positives)
        human = human_examples(context, self.human_frac, self._acquisition())
        llm = llm_examples(context, self.human_positive)
        if not human:
            if self.human_frac:
                line = "label_source=mixed: human_frac=%s gives no question a human label; the LLM's are all there is"
                log.warning(line, self.human_frac)
            return [Stage("llm", llm, self.epochs, self.positives)]
        if self.strategy == "union":
            both = with_shared_labels(union(llm, human), context.collection)
            return [Stage("union", both, self.epochs, self.positives)]
        second = Stage("human", human, self.human_epochs, self.human_positives, self.human_learning_rate, loss=self.human_loss)
        return with_other_positives(
            [Stage("llm", llm, self.epochs, self.positives), second], self.other_positives, context.collection.queries
        )

    def _acquisition(self) -> Acquisition:
        named = {None: self.acquire, "random": RandomAcquisition(), "uncertainty": UncertaintyAcquisition(self.uncertainty)}
        if self.allocation not in named:
            raise UserError(
                f"label_source.allocation={self.allocation!r}; allowed: random, uncertainty; choose others with acquire=NAME"
            )
        return named[self.allocation]


def union(first: Sequence[Example], second: Sequence[Example]) -> Iterator[Example]:
    """Both kinds of labels in one: a passage is positive where either says so; utilities are the first's, since grades and
    scores have different units, and the weight is the greater of the two."""
    places = {example.query_id: at for at, example in enumerate(second)}
    for example in first:
        at = places.pop(example.query_id, None)
        yield example if at is None else _joined(second[at], example)
    yield from (replace(second[at], utility=()) for at in places.values())


def _joined(human: Example, llm: Example) -> Example:
    pairs = {p.doc_id: p._replace(utility=None) for p in human.pairs()}
    for pair in llm.pairs():
        known = pairs.get(pair.doc_id)
        if known is None:
            pairs[pair.doc_id] = pair
        elif known.label == pair.label:
            source = f"{known.source}+{pair.source}" if pair.label else pair.source
            pairs[pair.doc_id] = Pair(pair.doc_id, pair.label, source, pair.utility)
        else:
            source = known.source if known.label else pair.source
            pairs[pair.doc_id] = Pair(pair.doc_id, 1, source, pair.utility)
    ignored = [d for d in llm.ignored if d not in pairs]
    return example_of(human.query_id, list(pairs.values()), f"{human.source}+llm", ignored, max(human.weight, llm.weight))
