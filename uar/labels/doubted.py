"""Queries that count less, since a model that was trained before disagrees with their labels."""

import logging
from dataclasses import replace

import numpy as np

from uar.errors import UserError
from uar.labels.example_columns import Examples
from uar.labels.source import LabelContext
from uar.labels.teacher_scores import ANNOTATOR, FILES, teacher_scores

log = logging.getLogger(__name__)


def with_doubted_weight(examples: Examples, context: LabelContext, model: str, weight: float) -> Examples:
    """The examples, of which those weigh `weight` times as much whose passage of the best score by `model`, or all of them
    where several have it, is none of their positives (annotation discrepancy, MoLLIA, arXiv 2601.15773: 0.5). `model`: a model
    or a run file, as `TeacherLabels` takes it; passages that it has no score of count as worse than all others."""
    if model == ANNOTATOR:
        raise UserError(f"label_source.doubted_by={model}: a model or a run file ({', '.join(FILES)}) is needed")
    if isinstance(weight, bool) or not 0 <= weight <= 1:
        raise UserError(f"label_source.doubted_weight={weight}: a number from 0 to 1 is needed, such as 0.5")
    pools = {e.query_id: [*e.positives, *e.negatives] for e in examples}
    scores = teacher_scores(model, None, "auto", context, pools, "label_source.doubted_by")
    positives = {e.query_id: e.positives for e in examples}
    best = {q: max(of.values()) for q, of in scores.items() if of}
    if not best:
        raise UserError(f"label_source.doubted_by={model}: it has a score for no passage; give a model of this collection")
    doubted = np.array([q in best and all(scores[q].get(d) != best[q] for d in positives[q]) for q in examples.query_ids])
    line = "%d of %d queries are doubted by %s, whose best passage is none of their positives, and weigh %g times as much"
    log.info(line, int(doubted.sum()), len(examples), model, weight)
    columns = replace(examples.columns, weight=np.where(doubted, weight, 1.0) * examples.columns.weight)
    return Examples(examples.query_ids, [columns], examples.names, examples.passages)
