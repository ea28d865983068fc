"""Judgements of several annotators as one probability, learned from the human labels of a few questions (MoLLIA, arXiv
2601.15773)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uar.acquisition import Acquisition
from uar.annotation.judgement import Judged
from uar.annotation.quality.calibration import brier
from uar.collections import Collection
from uar.errors import UserError
from uar.labels.annotator_features import JUDGED, LABEL, PLACE, SCORE, Features, feature_blocks
from uar.labels.combination import Combination
from uar.labels.human import AT_RANDOM, human_sample
from uar.labels.probable_judgements import ProbableJudgements
from uar.labels.source import LabelContext
from uar.labels.useful_classifier import MODELS, Fitted, fit

log = logging.getLogger(__name__)
FEW = 10  # questions, below which what is learned is little better than drawn


@dataclass(frozen=True)
class LearnedCombination(Combination):
    """A classifier of what the annotators say of a passage: the score of its judgements is the probability that people call it
    useful, the label 1 from `threshold` up, the uncertainty the entropy in bits.

    It learns from the human labels of `human_frac` of the queries, the first in the order of `acquire`, as `HumanLabels` takes
    them; those that no annotator judged are of no use. Where the judgements of a split are positives alone, the other
    passages of a judged question count as not useful. `model`: `logistic`, a logistic regression; `boosting`, gradient boosted
    trees with Platt's calibration. MoLLIA's growth by pseudo-labels is left out.
    """

    human_frac: float = 0.05
    acquire: Acquisition = AT_RANDOM
    model: str = "logistic"
    threshold: float = 0.5

    takes_one = True

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UserError(f"combine.model={self.model!r}; allowed: {', '.join(MODELS)}")
        if not 0 < self.threshold < 1:
            raise UserError(f"combine.threshold={self.threshold}: a probability between 0 and 1 is needed, such as 0.5")

    def combine(self, judged: Mapping[str, Judged], context: LabelContext) -> tuple[Judged, dict[str, Any] | None]:
        collection, names = context.collection, list(judged)
        every = list(judged.values())
        drawn = human_sample(context, self.human_frac, self.acquire, "combine.human_frac")
        given = [q for q in drawn if collection.origin_of(q) == "human"]  # where people judged none, others are drawn
        seen = [q for q in given if any(q in of for of in every)]
        features, human = _with_people(every, seen, collection)
        if not len(human):
            raise UserError(
                f"{collection.reference}: combine=learned has no human label to learn from: {len(given)} questions have one "
                f"(combine.human_frac={self.human_frac}) and the annotators judged {len(seen)} of them; raise human_frac or "
                "use combine=majority"
            )
        if human.all() or not human.any():
            said = "useful" if human.all() else "useless"
            raise UserError(
                f"{collection.reference}: combine=learned: all {len(human)} passages of the {len(seen)} questions with human "
                f"labels are {said} to people, and it needs both kinds; raise human_frac or use combine=majority"
            )
        fitted = fit(features.flat, human, features.query, self.model)
        if fitted is None:
            raise UserError(
                f"{collection.reference}: combine=learned: what it learns from {len(seen)} questions with human labels "
                f"(combine.human_frac={self.human_frac}) cannot be tried on another one; useful and useless passages of at "
                f"least two questions are needed, better of {FEW}; raise human_frac or use combine=majority"
            )
        facts = _facts(features, human, fitted, names) | {"human_questions": seen}
        _tell(facts, self.human_frac, len(given))
        queries = list(dict.fromkeys(q for of in every for q in of))
        parts = [(f, fitted.probability(f.flat)) for f in feature_blocks(every, queries, collection.corpus)]
        return ProbableJudgements(collection.corpus, parts, names, self.threshold), facts


def _with_people(judged: Sequence[Judged], query_ids: Sequence[str], collection: Collection) -> tuple[Features, np.ndarray]:
    """Features, and (pairs,) what people say, of the passages that people judged, which are few."""
    blocks = list(feature_blocks(judged, query_ids, collection.corpus))
    starts = np.cumsum([0, *(len(block.query_ids) for block in blocks)])
    query = np.concatenate([block.query + start for block, start in zip(blocks, starts, strict=False)] or [np.zeros(0, int)])
    if not len(query):
        return Features(query_ids, query, query, np.zeros((0, len(judged), 1))), query > 0
    rows = np.concatenate([block.rows for block in blocks])
    docs = collection.corpus.ids_at(rows)
    said = [collection.positive(query_ids[at], doc_id) for at, doc_id in zip(query.tolist(), docs, strict=True)]
    known = np.array([human is not None for human in said])
    values = np.concatenate([block.values for block in blocks])
    return Features(query_ids, query[known], rows[known], values[known]), np.array([h for h in said if h is not None], bool)


def _facts(features: Features, human: np.ndarray, fitted: Fitted, names: Sequence[str]) -> dict[str, Any]:
    """AUROC against people, of what is learned by cross-validation over questions."""
    from sklearn.metrics import roc_auc_score

    def auroc(values: np.ndarray) -> float:
        return round(float(roc_auc_score(human, values)), 4)

    of = features.values
    votes = np.nanmean(np.where(of[:, :, JUDGED] > 0, of[:, :, LABEL], np.nan), axis=1)
    alone = {}
    for at, name in enumerate(names):
        scored = np.isfinite(of[:, at, SCORE]).any()
        own = of[:, at, SCORE if scored else PLACE]
        alone[name] = auroc(np.where(np.isfinite(own), own, np.nanmin(own, initial=0.0)))
    facts: dict[str, Any] = {"combine": "learned", "pairs": len(human), "useful": int(human.sum()), "penalty": fitted.penalty}
    facts |= {"auroc": auroc(fitted.held_out), "brier": round(brier(fitted.held_out, human), 4)}
    return facts | {"auroc_of_votes": auroc(votes), "auroc_alone": alone}


def _tell(facts: Mapping[str, Any], human_frac: float, given: int) -> None:
    questions = len(facts["human_questions"])
    line = "combine=learned: fitted on human labels of %d questions (human_frac=%s), %d passages, %d of them useful"
    log.info(line, questions, human_frac, facts["pairs"], facts["useful"])
    if questions < given:
        log.warning("combine=learned: %d of %d questions with human labels have no judgements", given - questions, given)
    alone = ", ".join(f"{name} {value:.3f}" for name, value in facts["auroc_alone"].items())
    line = "combine=learned: AUROC against people %.3f by cross-validation over questions; votes %.3f; alone: %s"
    log.info(line, facts["auroc"], facts["auroc_of_votes"], alone)
    best = max([facts["auroc_of_votes"], *facts["auroc_alone"].values()])
    if facts["auroc"] < best - 0.01:
        log.warning("combine=learned is worse than the best of these on the questions it was fitted on; give it more")
    if questions < FEW:
        log.warning("combine=learned: %d questions are few to learn from; raise human_frac", questions)
