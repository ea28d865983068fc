"""Click logs: how often a passage was clicked where it was shown, corrected for its place in the list."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from uar.collections import Collection
from uar.errors import DataError, UserError
from uar.labels.equal_texts import with_shared_labels
from uar.labels.examples import Example, Pair, example_of
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.storage.lines import read_lines
from uar.storage.ordering import best_first

log = logging.getLogger(__name__)
COLUMNS = ("query", "doc", "impressions", "clicks", "position")


class Shown(NamedTuple):
    """A passage was shown at `position` (from 1) for a query `impressions` times and clicked `clicks` times."""

    query_id: str
    doc_id: str
    impressions: int
    clicks: int
    position: int


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
        examples = [_example(q, rates[q], clicked[q], self.threshold) for q in chosen]
        examples = with_shared_labels(examples, context.collection)
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


def click_lines(path: Path) -> Iterator[tuple[int, Shown, bool]]:
    """(line number, line, whether it says a position) of a log, of whatever queries and passages; a header is skipped.
    DataError names a faulty line."""
    for number, line in read_lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if number == 1 and len(cells) > 2 and not cells[2].isdecimal():
            continue
        if len(cells) not in (4, 5):
            raise DataError(path, f"{len(cells)} columns; {', '.join(COLUMNS[:4])} (and position) are needed, by tabs", number)
        counts = [int(c) if c.isdecimal() else -1 for c in cells[2:]]
        if min(counts) < 0 or counts[1] > counts[0] or (len(counts) > 2 and counts[2] < 1):
            raise DataError(
                path, f"{', '.join(COLUMNS[2:])} are {cells[2:]}; whole numbers, clicks ≤ impressions, position from 1", number
            )
        position = counts[2] if len(counts) > 2 else 1
        yield number, Shown(cells[0], cells[1], counts[0], counts[1], position), len(counts) > 2


def read_clicks(path: Path, collection: Collection, tell: bool = True) -> list[Shown]:
    """The log's lines; lines of other splits' queries are left out. DataError names a faulty line. `tell`: say what is left
    out."""
    rows, others = [], 0
    positions = False
    for number, row, has_position in click_lines(path):
        if row.query_id not in collection.queries:
            others += 1
            continue
        if collection.corpus.row(row.doc_id) < 0:
            raise DataError(path, f"passage id {row.doc_id!r} is not in the corpus; remove the line", number)
        positions = positions or has_position
        rows.append(row)
    if others and tell:
        log.info("%s: %d lines are of queries that %s does not have, and left out", path, others, collection.reference)
    if rows and not positions and tell:
        log.warning("%s has no positions (a fifth column): click-through is not corrected for them", path)
    return rows
