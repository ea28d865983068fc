"""Precision at a depth from people's judgements of single passages: far fewer than whole questions take."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.errors import UserError
from uar.evaluation.measures import parsed
from uar.evaluation.prediction_powered import as_shares
from uar.storage.ordering import rank_of
from uar.storage.runs import Run

FEWEST = 30  # passages that people judged; of fewer the interval says nothing


def depths(measures: Sequence[str]) -> dict[str, int]:
    """The measures that are a mean over passages, and how many these are a question; UserError where there is none."""
    precision = {name: m.params for name, m in parsed(measures).items() if m.NAME == "P"}
    known = {name: p["cutoff"] for name, p in precision.items() if "rel" not in p and not p.get("judged_only")}
    if not known:
        raise UserError(f"estimate.unit=passage: measures={', '.join(measures)} has no precision; add P@10 or the like")
    return known


def precision_estimates(
    collection: Collection,
    run: Run,
    measures: Sequence[str],
    llm: Mapping[str, Mapping[str, int]],
    human_frac: float | None,
    seed: int,
    level: float,
) -> dict[str, dict[str, float]]:
    """Of each P@k of `measures` on the questions of `llm`: as those of `Estimating.estimates`. What people judged of a
    question counts as drawn at random from what the run shows; `human_frac` of it is drawn by `seed`. A passage that the LLM
    did not judge counts as not relevant for it."""
    found, run = {}, without_own(collection, run)
    for measure, k in depths(measures).items():
        people, predicted = np.full((2, len(llm), k), np.nan)
        for at, (query_id, grades) in enumerate(llm.items()):
            human = collection.qrels.get(query_id, {})
            for place, (doc_id, _) in enumerate(run.get(query_id, ())[:k]):
                predicted[at, place] = grades.get(doc_id, 0) >= collection.positive_grade
                if doc_id in human and _drawn(seed, query_id, doc_id, human_frac):
                    people[at, place] = human[doc_id] >= collection.positive_grade
        judged = int((~np.isnan(people)).sum())
        if judged < FEWEST:
            raise UserError(
                f"{measure}: people judged {judged} of the passages that the run shows; at least {FEWEST} are needed"
            )
        values = estimated_share(people, predicted, level)
        shown = int((~np.isnan(predicted)).sum())
        counts = {"llm": float(np.nansum(predicted) / predicted.size), "people_passages": judged, "llm_passages": shown}
        found[measure] = {**{name: round(value, 6) for name, value in values.items()}, **counts}
    return found


def _drawn(seed: int, query_id: str, doc_id: str, share: float | None) -> bool:
    place = int.from_bytes(rank_of(seed, "estimate", query_id, doc_id)[:8], "big") / 2**64
    return share is None or place < share


def estimated_share(people: np.ndarray, predicted: np.ndarray, level: float) -> dict[str, float]:
    """Prediction-powered mean over places. `people`: (questions, k) 0/1, nan where they did not judge; `predicted`:
    (questions, k) 0/1, nan at places that the run leaves empty, which surely hold nothing relevant. Passages of a question are
    alike, so the variance is that of the questions' shares in the estimate."""
    sampled, shown = ~np.isnan(people), ~np.isnan(predicted)
    y, f, m, questions = people[sampled], predicted[sampled], int(sampled.sum()), len(people)
    covariance = float(np.cov(y, f)[0, 1])
    spread = (1 + m / int(shown.sum())) * float(predicted[shown].var())
    weight = min(1.0, max(0.0, covariance / spread)) if spread else 0.0
    there, by_llm = shown.sum(1) / shown.shape[1], np.nansum(predicted, 1) / shown.shape[1]  # shares of a question's places

    def interval(w: float) -> tuple[float, float, float]:
        left = np.where(sampled, people - w * predicted, 0.0)
        mean = float(left.sum() / m)
        value = there.mean() * mean + w * by_llm.mean()
        corrected = questions / m * there.mean() * (left - np.where(sampled, mean, 0.0)).sum(1)
        share = corrected + mean * (there - there.mean()) + w * (by_llm - by_llm.mean())
        margin = float(stdtrit(questions - 1, (1 + level) / 2) * share.std(ddof=1) / np.sqrt(questions))
        return value, value - margin, value + margin

    value, low, high = interval(weight)
    own, own_low, own_high = interval(0.0)
    both = {"value": value, "low": low, "high": high, "weight": weight}
    return as_shares(both | {"people": own, "people_low": own_low, "people_high": own_high}, people, predicted)
