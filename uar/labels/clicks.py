"""Click logs: how often a passage was clicked where it was shown, corrected for its place in the list."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from uar.collections.click_log import Shown, read_clicks
from uar.errors import UserError
from uar.labels.equal_texts import with_shared_labels
from uar.labels.examples import Example, Pair, example_of
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.storage.ordering import best_first

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClickLabels(LabelSource):
    """A TSV of query id, passage id, impressions, clicks and, where it is known, position; several lines of a pair add up.

    Utility of a passage = clicks / Σ over positions of impressions × examination, examination being the chance that a user
    looks at a position (the position-based model, Craswell et al., WSDM 2008): (1 / position)^`eta`. Both sides are smoothed
    by `prior` impressions of the log's mean rate, so that one lucky click is not a certainty. Without positions nothing is
    corrected, and the log says so.

    Only what users saw has a label. Positive is a clicked passage from `threshold` up; where no clicked passage of a query
    gets there, the best of them; a copy of its text too. Negative is any other shown passage below that. One that was never
    clicked and is not below it was shown too seldom to tell, and is ignored. People's judgements and candidate pools play no
    part.
    """

    path: str
    eta: float = 1.0
    prior: float = 10.0
    threshold: float = 0.3
    epochs: int = 1
    positives: str = "all"

    def stages(self, context: LabelContext) -> list[Stage]:
        if self.eta < 0 or self.prior < 0:
            raise UserError(f"label_source.eta={self.eta}, prior={self.prior}: both must be 0 or more")
        rows = read_clicks(Path(self.path), context.collection)
        rates = click_rates(rows, self.eta, self.prior)
        clicked: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            if row.clicks:
                clicked[row.query_id].add(row.doc_id)
        chosen = [q for q in context.query_ids if q in clicked]
        if not chosen:
            raise UserError(f"{self.path}: no query of {context.collection.reference} has a click; give the log of this split")
        examples = with_shared_labels((_example(q, rates[q], clicked[q], self.threshold) for q in chosen), context.collection)
        counts = [sum(len(getattr(e, kind)) for e in examples) for kind in ("positives", "negatives", "ignored")]
        log.info(
            "Clicks: %d of %d queries have one; %d positives, %d negatives, %d passages shown too seldom to tell",
            len(examples), len(context.query_ids), *counts,
        )  # fmt: skip
        return [Stage("clicks", examples, self.epochs, self.positives)]


def _example(query_id: str, rates: Mapping[str, float], clicked: Set[str], threshold: float) -> Example:
    least = min(threshold, max(rates[d] for d in clicked))
    seldom = [d for d, rate in rates.items() if rate >= least and d not in clicked]
    rated = [hit for hit in best_first(rates.items()) if hit[0] not in set(seldom)]
    return example_of(query_id, [Pair(d, int(rate >= least), "clicks", rate) for d, rate in rated], "clicks", seldom)


def click_rates(rows: list[Shown], eta: float = 1.0, prior: float = 10.0) -> dict[str, dict[str, float]]:
    """Position-corrected, smoothed click-through from 0 to 1 of the passages that were shown, by query."""
    clicks, looked = examined(rows, eta)
    mean = sum(clicks.values()) / max(sum(looked.values()), 1e-9)
    rates: dict[str, dict[str, float]] = defaultdict(dict)
    for (query_id, doc_id), seen in looked.items():
        rate = (clicks[query_id, doc_id] + prior * min(mean, 1.0)) / max(seen + prior, 1e-9)
        rates[query_id][doc_id] = min(1.0, rate)
    return dict(rates)


def examined(rows: list[Shown], eta: float) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """By (query id, passage id), clicks, and Σ over positions of impressions × examination."""
    clicks: dict[tuple[str, str], float] = defaultdict(float)
    looked: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        if not row.impressions:
            continue
        clicks[row.query_id, row.doc_id] += row.clicks
        looked[row.query_id, row.doc_id] += row.impressions * (1 / row.position) ** eta
    return clicks, looked
