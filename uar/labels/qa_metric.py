"""Utility for the answer, measured: how likely a passage makes the gold answer, or how good the answer from it is."""

import logging
from dataclasses import dataclass

from uar.errors import UserError
from uar.labels.examples import Pair, example_of
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.storage.ordering import best_first

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QAMetricLabels(LabelSource):
    """The scores of an annotator that measures utility (`likelihood` of the answer, `qa_metric`) as soft labels, for `kl` and
    its like; the best passage of each pool counts as its positive, for the losses that need one."""

    epochs: int = 1
    positives: str = "one"

    def stages(self, context: LabelContext) -> list[Stage]:
        judged = context.judgements()
        examples = []
        for query_id in context.query_ids:
            scores = {j.doc_id: j.score for j in judged.get(query_id, ()) if j.score is not None}
            if not scores:
                continue
            order = [d for d, _ in best_first(scores.items())]
            pairs = [Pair(d, int(d == order[0]), "qa_metric", scores[d]) for d in order]
            examples.append(example_of(query_id, pairs, "qa_metric"))
        if not examples:
            raise UserError(
                f"{context.collection.reference}: the annotations have no scores, which label_source=qa_metric learns from; "
                "use annotator=answer_likelihood or annotator=qa_metric"
            )
        log.info("QA metric: %d of %d queries have scored passages", len(examples), len(context.query_ids))
        return [Stage("qa_metric", examples, self.epochs, self.positives)]
