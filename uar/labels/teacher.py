"""Distillation: the scores of a teacher as soft labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from uar.errors import UserError
from uar.labels.examples import Example, Pair, example_of
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.labels.teacher_scores import ANNOTATOR, teacher_scores
from uar.storage.ordering import best_first

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherLabels(LabelSource):
    """The scores of a teacher as utilities, for `kl`, `kl_contrastive`, `margin_mse` and `rank_net`. `scores`: a model by
    reference, such as the `model/` of a cross-encoder's run; a run file (.trec, .jsonl); or `annotator`, whose scores are
    taken from the store.

    The passages are the candidates of each query, and the teacher's best is the query's positive. With `labels`, another
    label source, passages, positives and stages are its own, and the teacher gives the utilities alone. `revision`: of a
    model on the hub. `precision`: of the model's arithmetic, auto, bf16, fp32 or fp16.
    """

    scores: str
    labels: LabelSource | None = None
    revision: str | None = None
    precision: str = "auto"
    epochs: int = 1
    positives: str = "one"

    def stages(self, context: LabelContext) -> list[Stage]:
        stages = [] if self.labels is None else self.labels.stages(context)
        offered = context.pools(context.query_ids) if self.labels is None else _pools(stages)
        pools = {q: pool for q, pool in offered.items() if pool}
        found = teacher_scores(self.scores, self.revision, self.precision, context, pools)
        wanted, scored = sum(map(len, pools.values())), sum(len(found.get(q, ())) for q in pools)
        if not scored:
            of_store = self.scores == ANNOTATOR
            hint = "use one with scores, such as likelihood" if of_store else "give a teacher of this collection"
            raise UserError(f"label_source.scores={self.scores}: it has a score for none of {wanted} passages; {hint}")
        if scored < wanted:
            log.warning("label_source.scores: %d of %d passages have no score and teach nothing", wanted - scored, wanted)
        if stages:
            return [replace(s, examples=[_taught(e, found.get(e.query_id, {})) for e in s.examples]) for s in stages]
        examples = [_example(q, scores) for q in pools if (scores := found.get(q))]
        log.info("Teacher: %d of %d queries have scored passages", len(examples), len(context.query_ids))
        return [Stage("teacher", examples, self.epochs, self.positives)]


def _pools(stages: Sequence[Stage]) -> dict[str, list[str]]:
    """All passages of a query in any stage."""
    pools: dict[str, dict[str, None]] = {}
    for stage in stages:
        for example in stage.examples:
            pools.setdefault(example.query_id, {}).update(dict.fromkeys(example.positives + example.negatives))
    return {q: list(pool) for q, pool in pools.items()}


def _example(query_id: str, scores: Mapping[str, float]) -> Example:
    ranked = best_first(scores.items())
    return example_of(query_id, [Pair(d, int(at == 0), "teacher", score) for at, (d, score) in enumerate(ranked)], "teacher")


def _taught(example: Example, scores: Mapping[str, float]) -> Example:
    """The example with the teacher's scores as its utilities, whatever they were."""
    pairs = [pair._replace(utility=scores.get(pair.doc_id)) for pair in example.pairs()]
    return example_of(example.query_id, pairs, example.source, example.ignored, example.weight)
