"""Which queries get human labels: drawn at random, or those of which the LLM is least sure."""

import logging
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from uar.annotation.annotators import Judgement
from uar.errors import UserError
from uar.storage.ordering import rank_of

log = logging.getLogger(__name__)
MEASURES = ("auto", "disagreement", "margin", "entropy")


def nested_sample(query_ids: Sequence[str], fraction: float, seed: int) -> list[str]:
    """A random `fraction` of the queries, in their given order. A smaller fraction of the same seed is a subset of a larger
    one, on any machine."""
    return _first(query_ids, sorted(query_ids, key=lambda q: rank_of(seed, "human", q)), fraction)


def least_certain(
    query_ids: Sequence[str],
    fraction: float,
    seed: int,
    judged: Mapping[str, Sequence[Judgement]],
    measure: str = "auto",
) -> list[str]:
    """The `fraction` of the queries of which the annotator was least sure, in their given order; nested like a random sample.
    Queries that were not annotated come after all others, at random.

    `measure`: `disagreement`, the mean uncertainty that the annotator noted a passage; `margin`, how close the score of the
    second passage comes to that of the first; `entropy`, of the softmax of the pool's scores over its greatest possible
    value; `auto`, disagreement where it was noted, else margin.
    """
    doubts = uncertainties({q: judged[q] for q in query_ids if judged.get(q)}, measure)
    without = len(query_ids) - len(doubts)
    if without:
        log.info("Uncertainty: %d of %d queries have no annotation to tell it from and come last", without, len(query_ids))
    order = sorted(query_ids, key=lambda q: (-doubts.get(q, -math.inf), rank_of(seed, "human", q)))
    return _first(query_ids, order, fraction)


def uncertainties(judged: Mapping[str, Sequence[Judgement]], measure: str = "auto") -> dict[str, float]:
    """Doubt a query, higher for less sure; UserError where the judgements do not tell."""
    if measure not in MEASURES:
        raise UserError(f"label_source.uncertainty={measure!r}; allowed: {', '.join(MEASURES)}")
    everything = [j for judgements in judged.values() for j in judgements]
    noted, scored = (any(getattr(j, n) is not None for j in everything) for n in ("uncertainty", "score"))
    if measure == "auto":
        measure = "disagreement" if noted else "margin"
    if not (noted if measure == "disagreement" else scored):
        missing = "noted doubt" if measure == "disagreement" else "scores"
        raise UserError(
            f"label_source.allocation=uncertainty: the annotations have no {missing} to take {measure} from; use "
            "annotator=ensemble, pointwise or likelihood, several annotators, or allocation=random"
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


def _first(query_ids: Sequence[str], order: Sequence[str], fraction: float) -> list[str]:
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise UserError(f"human_frac={fraction}: a share from 0 to 1 is needed, such as human_frac=0.2")
    chosen = set(order[: round(fraction * len(order))])
    return [q for q in query_ids if q in chosen]
