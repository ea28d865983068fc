"""Labels by people: the positives of the qrels."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from uar.acquisition import Acquisition, AcquisitionContext, RandomAcquisition
from uar.errors import UserError
from uar.labels.equal_texts import with_shared_labels
from uar.labels.example_columns import Examples
from uar.labels.examples import Example, Pair, example_of
from uar.labels.source import LabelContext, LabelSource, Stage

log = logging.getLogger(__name__)
AT_RANDOM = RandomAcquisition()


@dataclass(frozen=True)
class HumanLabels(LabelSource):
    """The human positives of `human_frac` of the queries, the first in the order of `acquire`; negatives from the candidate
    pool, but for copies of a positive, which are positives. Where the judgements have several grades, the grades are the
    utilities of the judged passages."""

    human_frac: float = 1.0
    acquire: Acquisition = AT_RANDOM
    epochs: int = 1
    positives: str = "one"

    def stages(self, context: LabelContext) -> list[Stage]:
        examples = human_examples(context, self.human_frac, self.acquire)
        if not examples:
            raise UserError(
                f"{context.collection.reference}: none of {len(context.query_ids)} questions gets a human label "
                f"(human_frac={self.human_frac}); use label_source=llm, a larger human_frac or another split"
            )
        return [Stage("human", examples, self.epochs, self.positives)]


def human_examples(context: LabelContext, fraction: float, acquire: Acquisition = AT_RANDOM) -> Examples:
    """Examples of the `fraction` that `acquire` puts first of the queries that have a positive; where people judged some of
    them, of these alone. Their source is their `origin`."""
    collection = context.collection
    positive = [q for q in context.query_ids if collection.trainable(q)]
    labelled = collection.by_people(positive)
    sample = human_sample(context, fraction, acquire)
    who = collection.origin_of(labelled[0]) if labelled else collection.origin
    log.info(
        "%s labels: %d of %d queries (human_frac=%s; %d without a positive are left out)",
        who.capitalize(), len(sample), len(labelled), fraction, len(context.query_ids) - len(positive),
    )  # fmt: skip
    if len(labelled) < len(positive):
        log.info("%d generated questions have no human label: the LLM's labels are theirs", len(positive) - len(labelled))
    pools = context.pools(sample)
    graded = len({g for grades in collection.qrels.values() for g in grades.values() if g > 0}) > 1

    def example(query_id: str) -> Example:
        grades = collection.qrels[query_id] if graded else {}
        positives = collection.trainable(query_id)
        negatives = [d for d in pools[query_id] if d not in positives]
        labels = {**dict.fromkeys(positives, 1), **dict.fromkeys(negatives, 0)}
        return example_of(query_id, [Pair(d, x, who, grades.get(d)) for d, x in labels.items()], who)

    return with_shared_labels(map(example, sample), collection)


def human_sample(context: LabelContext, fraction: float, acquire: Acquisition, option: str = "human_frac") -> list[str]:
    """The `fraction` that `acquire` puts first of the queries that people found a positive for; where people judged some of
    them, of these alone. `option`: what errors call the fraction."""
    collection = context.collection
    labelled = collection.by_people(q for q in context.query_ids if collection.trainable(q))
    wanted = budget(fraction, len(labelled), option)
    asked = AcquisitionContext(labelled, context.seed, frozenset(), context.judgements, context.unaware, collection, wanted)
    return first_share(labelled, acquire.order(asked) if 0 < wanted < len(labelled) else labelled, fraction)


def budget(fraction: float, number: int, option: str = "human_frac") -> int:
    """How many of a number of queries a share of them is; UserError where it is none."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise UserError(f"{option}={fraction}: a share from 0 to 1 is needed, such as human_frac=0.2")
    return round(fraction * number)


def first_share(query_ids: Sequence[str], order: Sequence[str], fraction: float) -> list[str]:
    """The first `fraction` of an order of the queries, as they stand in `query_ids`."""
    chosen = set(order[: budget(fraction, len(order))])
    return [q for q in query_ids if q in chosen]
