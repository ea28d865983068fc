"""Labels by clicks and by an LLM together: clicks know the queries that are asked often, the LLM all the others."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from uar.collections.click_log import Shown, read_clicks
from uar.collections.frequency_bands import BANDS, bands, frequencies
from uar.errors import UserError
from uar.labels.clicks import ClickLabels, examined
from uar.labels.equal_texts import with_shared_labels
from uar.labels.examples import Example, Pair, example_of
from uar.labels.llm import llm_examples
from uar.labels.other_positives import with_other_positives
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.storage.ordering import best_first

log = logging.getLogger(__name__)
KAPPA = {"weighted": 50.0, "fused": 10.0, "schedule": 50.0}  # by strategy


@dataclass(frozen=True)
class ClickLLMLabels(LabelSource):
    """A click log and an annotator, weighed by how often a query is asked (the idea of arXiv 2511.06635: click labels win on
    frequent queries, LLM labels on the others; its formulas are not public, these are uar's own).

    `strategy`: `weighted`, a row a query and source in the loss, of weight a = f / (f + `kappa`) for clicks and 1 - a for the
    LLM, f being the impressions of the query; a query of which the LLM alone has labels has weight 1. `fused`, a row a query:
    the click-through of each passage is smoothed by `kappa` looks more, at the rate of the passages of which the LLM says the
    same; positive is what comes nearer to the rate of those that it calls useful. `schedule`, a stage on the LLM's labels and
    then one on clicks, of weight a.

    A passage that is positive in one row of a query is negative in none. `path`, `eta`, `prior` and `threshold` are those of
    `ClickLabels`. `kappa` None: 50, and 10 of `fused`.
    """

    path: str
    strategy: str = "weighted"
    kappa: float | None = None
    eta: float = 1.0
    prior: float = 10.0
    threshold: float = 0.3
    epochs: int = 1
    positives: str = "all"

    def stages(self, context: LabelContext) -> list[Stage]:
        if self.strategy not in KAPPA:
            raise UserError(f"label_source.strategy={self.strategy!r}; allowed: {', '.join(KAPPA)}")
        if not self._kappa > 0:
            raise UserError(f"label_source.kappa={self.kappa}: impressions above 0 are needed, such as 50, or null")
        (of_clicks,) = ClickLabels(self.path, self.eta, self.prior, self.threshold).stages(context)
        rows = read_clicks(Path(self.path), context.collection, tell=False)
        asked = frequencies((r.query_id, r.doc_id, r.impressions) for r in rows)
        llm, clicks = list(llm_examples(context)), list(of_clicks.examples)
        self._tell(asked, context, llm, clicks)
        if self.strategy == "fused":
            examples = with_shared_labels(self._fused(rows, context), context.collection)
            return [Stage("clicks+llm", examples, self.epochs, self.positives)]
        share = {q: f / (f + self._kappa) for q, f in asked.items()}
        clicked = {e.query_id for e in clicks}
        clicks = [replace(e, weight=share[e.query_id]) for e in clicks]
        if self.strategy == "schedule":
            stages = [Stage("llm", llm, self.epochs, self.positives), Stage("clicks", clicks, self.epochs, self.positives)]
            return with_other_positives(stages, "ignore", context.collection.queries)
        llm = [replace(e, weight=1 - share[e.query_id]) if e.query_id in clicked else e for e in llm]
        return [Stage("clicks+llm", without_contradictions([*clicks, *llm]), self.epochs, self.positives)]

    @property
    def _kappa(self) -> float:
        return KAPPA[self.strategy] if self.kappa is None else self.kappa

    def _fused(self, rows: list[Shown], context: LabelContext) -> list[Example]:
        judged, own = context.judgements(), set(context.query_ids)
        clicks, looked = examined([row for row in rows if row.query_id in own], self.eta)
        said = {(q, j.doc_id): int(j.label) for q in context.query_ids if q in judged for j in judged[q]}
        rates = [_rate([pair for pair, label in said.items() if label == kind], clicks, looked) for kind in (0, 1)]
        useless, useful = rates
        if useless is None or useful is None or useful <= useless:
            raise UserError(
                f"{self.path}: passages that the LLM calls useful are clicked no more often than others (rates {useful} and "
                f"{useless}), so that label_source.strategy=fused cannot join the two; use weighted, or label_source=clicks"
            )
        log.info("Clicks and LLM: %.3f of the looks at what the LLM calls useful are clicks, else %.3f", useful, useless)
        shown: dict[str, dict[str, None]] = defaultdict(dict)
        for query_id, doc_id in [*said, *looked]:
            shown[query_id][doc_id] = None
        middle = (useful + useless) / 2
        examples = []
        for query_id, docs in shown.items():
            fused = {}
            for doc_id in docs:
                label = said.get((query_id, doc_id))
                before = middle if label is None else useful if label else useless
                seen = looked.get((query_id, doc_id), 0.0)
                fused[doc_id] = min(1.0, (clicks.get((query_id, doc_id), 0.0) + self._kappa * before) / (seen + self._kappa))
            told = [(d, rate) for d, rate in best_first(fused.items()) if rate != middle]
            pairs = [Pair(d, int(rate > middle), "clicks+llm", rate) for d, rate in told]
            if any(pair.label for pair in pairs):
                unknown = [d for d, rate in fused.items() if rate == middle]
                examples.append(example_of(query_id, pairs, "clicks+llm", unknown))
        if not examples:
            raise UserError(f"{self.path}: no passage is positive by clicks and LLM together; use strategy=weighted")
        return examples

    def _tell(self, asked: Mapping[str, int], context: LabelContext, llm: list[Example], clicks: list[Example]) -> None:
        """How many queries of each band have labels of either kind."""
        of = bands(asked, context.query_ids)
        for band in BANDS:
            own = [q for q in context.query_ids if of[q] == band]
            times = [asked.get(q, 0) for q in own]
            counts = [len({e.query_id for e in source} & set(own)) for source in (clicks, llm)]
            share = float(np.mean([f / (f + self._kappa) for f in times])) if times else 0.0
            line = "Clicks and LLM: %s: %d queries, asked %d to %d times; %d have clicks, %d LLM labels; clicks weigh %.2f"
            log.info(line, band, len(own), min(times, default=0), max(times, default=0), *counts, share)


def without_contradictions(examples: list[Example]) -> list[Example]:
    """Rows of which a passage that is positive in one is ignored by the others of its query, not negative."""
    positive: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        positive[example.query_id].update(example.positives)
    found = []
    for example in examples:
        others = [d for d in example.negatives if d in positive[example.query_id]]
        if others:
            pairs = [pair for pair in example.pairs() if pair.doc_id not in others]
            ignored = [*example.ignored, *others]
            example = example_of(example.query_id, pairs, example.source, ignored, example.weight)
        found.append(example)
    return found


def _rate(
    pairs: list[tuple[str, str]], clicks: Mapping[tuple[str, str], float], looked: Mapping[tuple[str, str], float]
) -> float | None:
    """Clicks a look, None where nobody looked."""
    seen = sum(looked.get(pair, 0.0) for pair in pairs)
    return sum(clicks.get(pair, 0.0) for pair in pairs) / seen if seen else None
