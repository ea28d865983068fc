"""Queries of which the LLM is least sure."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from uar.acquisition.acquisition import Acquisition, AcquisitionContext, drawn
from uar.annotation.annotators import Judgement
from uar.errors import UserError

log = logging.getLogger(__name__)
MEASURES = ("auto", "disagreement", "margin", "entropy")


@dataclass(frozen=True)
class UncertaintyAcquisition(Acquisition):
    """The queries of which the annotator was least sure first. Queries that were not annotated come after all others, at
    random.

    `measure`: `disagreement`, the mean uncertainty that the annotator noted a passage; `margin`, how close the score of the
    second passage comes to that of the first; `entropy`, of the softmax of the pool's scores over its greatest possible
    value; `auto`, disagreement where it was noted, else margin.
    """

    measure: str = "auto"

    def order(self, context: AcquisitionContext) -> list[str]:
        judged, query_ids = context.judgements(), context.unlabelled
        doubts = uncertainties({q: judged[q] for q in query_ids if judged.get(q)}, self.measure)
        without = len(query_ids) - len(doubts)
        if without:
            log.info("Uncertainty: %d of %d queries have no annotation to tell it from and come last", without, len(query_ids))
        return sorted(query_ids, key=lambda q: (-doubts.get(q, -math.inf), drawn(context, q)))


def uncertainties(judged: Mapping[str, Sequence[Judgement]], measure: str = "auto") -> dict[str, float]:
    """Doubt a query, higher for less sure; UserError where the judgements do not tell."""
    if measure not in MEASURES:
        raise UserError(f"acquire.measure (label_source.uncertainty)={measure!r}; allowed: {', '.join(MEASURES)}")
    everything = [j for judgements in judged.values() for j in judgements]
    noted, scored = (any(getattr(j, n) is not None for j in everything) for n in ("uncertainty", "score"))
    if measure == "auto":
        measure = "disagreement" if noted else "margin"
    if not (noted if measure == "disagreement" else scored):
        missing = "noted doubt" if measure == "disagreement" else "scores"
        raise UserError(
            f"acquire=uncertainty: the annotations have no {missing} to take {measure} from; use "
            "annotator=ensemble, pointwise or likelihood, several annotators, or acquire=random"
        )
    of = {"disagreement": _disagreement, "margin": _closeness, "entropy": _entropy}[measure]
    return {q: of(judgements) for q, judgements in judged.items()}


def _disagreement(judgements: Sequence[Judgement]) -> float:
    return fmean(j.uncertainty or 0.0 for j in judgements)


def _closeness(judgements: Sequence[Judgement]) -> float:
    scores = sorted((j.score for j in judgements if j.score is not None), reverse=True)
    return scores[1] - scores[0] if len(scores) > 1 else -math.inf


def _entropy(judgements: Sequence[Judgement]) -> float:
    scores = [j.score for j in judgements if j.score is not None]
    if len(scores) < 2:
        return 0.0
    weights = [math.exp(s - max(scores)) for s in scores]
    shares = [w / sum(weights) for w in weights]
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(scores))
