"""Labels by people: the positives of the qrels."""

import logging
from dataclasses import dataclass

from uar.errors import UserError
from uar.labels.budget import nested_sample
from uar.labels.source import Example, LabelContext, LabelSource, Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HumanLabels(LabelSource):
    """The human positives of `human_frac` of the queries; negatives from the candidate pool."""

    human_frac: float = 1.0
    epochs: int = 1
    positives: str = "one"

    def stages(self, context: LabelContext) -> list[Stage]:
        examples = human_examples(context, self.human_frac)
        if not examples:
            raise UserError(
                f"{context.collection.reference}: no question with a positive among the {len(context.query_ids)} chosen "
                f"(human_frac={self.human_frac}); use label_source=llm, a larger human_frac or another split"
            )
        return [Stage("human", examples, self.epochs, self.positives)]


def human_examples(context: LabelContext, fraction: float) -> list[Example]:
    """Examples of the sampled queries that have a positive."""
    labelled = [q for q in context.query_ids if context.collection.trainable(q)]
    sample = nested_sample(labelled, fraction, context.seed)
    log.info(
        "Human labels: %d of %d queries (human_frac=%s; %d without a positive are left out)",
        len(sample), len(labelled), fraction, len(context.query_ids) - len(labelled),
    )  # fmt: skip
    pools = context.pools(sample)
    examples = []
    for query_id in sample:
        positives = tuple(context.collection.trainable(query_id))
        negatives = tuple(d for d in pools[query_id] if d not in positives)
        examples.append(Example(query_id, positives, negatives, "human"))
    return examples
