"""Labels by an LLM: what an annotator makes of the records in the store."""

import logging
from dataclasses import dataclass

from uar.errors import UserError
from uar.labels.source import Example, LabelContext, LabelSource, Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LLMLabels(LabelSource):
    """The annotator's positives of every annotated query; negatives are the judged passages that it did not choose."""

    epochs: int = 1
    positives: str = "all"

    def stages(self, context: LabelContext) -> list[Stage]:
        return [Stage("llm", llm_examples(context), self.epochs, self.positives)]


def llm_examples(context: LabelContext) -> list[Example]:
    """Examples of the annotated queries that got a positive; UserError where there is none."""
    judged = context.judgements()
    chosen = [q for q in context.query_ids if q in judged]
    examples = []
    for query_id in chosen:
        positives = tuple(j.doc_id for j in judged[query_id] if j.label)
        negatives = tuple(j.doc_id for j in judged[query_id] if not j.label)
        if positives:
            examples.append(Example(query_id, positives, negatives, "llm"))
    if not examples:
        raise UserError(
            f"{context.collection.reference}: the annotator found no positive in any of {len(chosen)} annotated queries; "
            "loosen annotator.threshold or use another annotator"
        )
    log.info(
        "LLM labels: %d of %d queries are annotated, %d of them have a positive (%.2f positives a query)",
        len(chosen), len(context.query_ids), len(examples), sum(len(e.positives) for e in examples) / len(examples),
    )  # fmt: skip
    return examples
