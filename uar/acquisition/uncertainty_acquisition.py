"""Queries of which the LLM is least sure."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from uar.acquisition.acquisition import Acquisition, AcquisitionContext, Doubted, Judgements, distinct
from uar.collections import Corpus
from uar.errors import UserError

log = logging.getLogger(__name__)
MEASURES = ("auto", "disagreement", "margin", "entropy", "stated")


@dataclass(frozen=True)
class UncertaintyAcquisition(Acquisition):
    """The queries of which the annotator was least sure first. Queries of which its annotation does not tell, as where there
    is none, come after all others, at random. Of passages with one text the first counts.

    `measure`: `disagreement`, the mean uncertainty of the passages that it was noted of; `margin`, how close the score of the
    second passage comes to that of the first; `entropy`, of the softmax of the pool's scores over its greatest possible
    value; `stated`, the mean probability that the LLM gave to other grades than the one it stated, of the passages whose
    probabilities are there; `auto`, disagreement where it was noted, else margin.
    """

    measure: str = "auto"

    def order(self, context: AcquisitionContext) -> list[str]:
        judged, query_ids = context.judgements(), context.drawn
        corpus = context.collection.corpus if context.collection else None
        doubts = uncertainties({q: judged[q] for q in query_ids if judged.get(q)}, self.measure, corpus)
        without = len(query_ids) - len(doubts)
        if without:
            log.info("Uncertainty: %d of %d queries have no annotation to tell it from and come last", without, len(query_ids))
        return sorted(query_ids, key=lambda q: -doubts.get(q, -math.inf))


def uncertainties(judged: Judgements, measure: str = "auto", corpus: Corpus | None = None) -> dict[str, float]:
    """Doubt a query, higher for less sure, without those whose judgements do not tell; UserError where none have what tells.
    `corpus`: of the passages, of which several with one text count once."""
    if measure not in MEASURES:
        raise UserError(f"acquire.measure (label_source.uncertainty)={measure!r}; allowed: {', '.join(MEASURES)}")
    if corpus is not None:
        places = distinct(corpus, {q: [j.doc_id for j in judgements] for q, judgements in judged.items()})
        judged = {q: [judged[q][at] for at in own] if len(own) < len(judged[q]) else judged[q] for q, own in places.items()}
    everything = [j for judgements in judged.values() for j in judgements]
    noted = any(j.uncertainty is not None for j in everything)
    if measure == "auto":
        measure = "disagreement" if noted else "margin"
    there, lacking = {
        "disagreement": (noted, "noted doubt"),
        "stated": (any(j.logprobs for j in everything), "probabilities of grades"),
    }.get(measure, (any(j.score is not None for j in everything), "scores"))
    if not there:
        raise UserError(
            f"acquire=uncertainty: the annotations have no {lacking} to take {measure} from; use "
            "annotator=ensemble, pointwise or likelihood, several annotators, or acquire=random"
        )
    of = {"disagreement": _disagreement, "margin": _closeness, "entropy": _entropy, "stated": _unstated}[measure]
    doubts = {q: of(judgements) for q, judgements in judged.items()}
    return {q: doubt for q, doubt in doubts.items() if doubt is not None}


def _disagreement(judgements: Sequence[Doubted]) -> float | None:
    return _mean([j.uncertainty for j in judgements if j.uncertainty is not None])


def _closeness(judgements: Sequence[Doubted]) -> float | None:
    scores = sorted((j.score for j in judgements if j.score is not None), reverse=True)
    return scores[1] - scores[0] if len(scores) > 1 else None


def _entropy(judgements: Sequence[Doubted]) -> float | None:
    scores = [j.score for j in judgements if j.score is not None]
    if len(scores) < 2:
        return None
    weights = [math.exp(s - max(scores)) for s in scores]
    shares = [w / sum(weights) for w in weights]
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(scores))


def _unstated(judgements: Sequence[Doubted]) -> float | None:
    return _mean([1 - math.exp(max(j.logprobs)) / sum(map(math.exp, j.logprobs)) for j in judgements if j.logprobs])


def _mean(doubts: Sequence[float]) -> float | None:
    return fmean(doubts) if doubts else None
