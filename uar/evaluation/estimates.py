"""Scores of runs as if people had judged all questions: estimated from few judgements by people and many by an LLM."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uar.collections import Collection
from uar.errors import UserError
from uar.evaluation.measures import per_query
from uar.evaluation.passage_estimates import precision_estimates
from uar.evaluation.prediction_powered import as_shares, estimated_mean
from uar.evaluation.score_files import Values, by_measure
from uar.launch.small_table import log_table
from uar.storage.labelled_pairs import FileLabel, Labels
from uar.storage.ordering import rank_of
from uar.storage.runs import Run

log = logging.getLogger(__name__)
FEWEST = 5  # questions that people judged; of fewer the interval says nothing
FEW = 10  # below which the LLM can cost more than it brings
UNITS = ("question", "passage")
COLUMNS = ("measure", "estimate", "low", "high", "people alone", "their low", "their high", "LLM alone", "narrower by")


@dataclass(frozen=True)
class Estimating:
    """`level`: how often the interval is to hold the truth. `human_frac`: the share of the questions judged by people whose
    judgements are used, drawn by `seed`; None: all. `unit`: what people judged at random: whole questions, for any measure, or
    single passages, for precision."""

    level: float = 0.95
    human_frac: float | None = None
    seed: int = 0
    unit: str = "question"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(f"estimate.unit={self.unit!r}; allowed: {', '.join(UNITS)}")
        if not 0 < self.level < 1:
            raise UserError(f"estimate.level={self.level}: a share between 0 and 1 is needed, such as 0.95")
        if self.human_frac is not None and not 0 < self.human_frac <= 1:
            raise UserError(f"estimate.human_frac={self.human_frac}: a share above 0, at most 1, is needed, or null for all")

    def by_people(self, query_ids: Sequence[str]) -> list[str]:
        """Those of the questions that people judged whose judgements are used. A smaller share is part of a larger one."""
        drawn = sorted(query_ids, key=lambda q: rank_of(self.seed, "estimate", q))
        return drawn[: None if self.human_frac is None else round(self.human_frac * len(drawn))]

    def of_passages(self, query_ids: Sequence[str]) -> list[str]:
        """As `by_people`, where they judged passages: of single ones some of each question are used."""
        return list(query_ids) if self.unit == "passage" else self.by_people(query_ids)

    def title(self, human: int, llm: int) -> str:
        """Of a table of estimates, from the numbers of questions that people and the LLM judged."""
        some = "some passages of them" if self.unit == "passage" else f"they judged {human}"
        return f"as if people had judged all {llm} questions ({some}), {100 * self.level:g} % intervals"

    def of_run(
        self,
        collection: Collection,
        run: Run,
        measures: Sequence[str],
        human: Sequence[str],
        llm: Mapping[str, Mapping[str, int]],
    ) -> dict[str, Any]:
        """By measure. `human`: the questions whose judgements by people are used; `llm`: its qrels, see `llm_grades`."""
        if self.unit == "passage":
            return precision_estimates(collection, run, measures, llm, self.human_frac, self.seed, self.level)
        return self.estimates(*values_of(collection, run, measures, human, llm))

    def estimates(self, people: Values, llm: Values) -> dict[str, Any]:
        """By measure. `people`: values of the questions that they judged, `llm`: of these and of all others. Where all of
        people's are the same, there is no interval."""
        found: dict[str, Any] = {}
        for measure, judged in people.items():
            predicted = llm.get(measure, {})
            both = [q for q in judged if q in predicted]
            if len(both) < FEWEST:
                raise UserError(
                    f"{measure}: {len(both)} questions have judgements by people and by the LLM; at least {FEWEST} are needed "
                    "for an estimate; have more judged by both"
                )
            own, beside = (np.array([of[q] for q in both]) for of in (judged, predicted))
            elsewhere = np.array([value for q, value in predicted.items() if q not in judged])
            values = {n: float(v) for n, v in vars(estimated_mean(own, beside, elsewhere, self.level)).items()}
            if len(both) < FEW:
                log.warning(
                    "%s: %d questions by people are few: an LLM that says little widens the interval", measure, len(both)
                )
            found[measure] = {
                **{name: round(value, 6) for name, value in as_shares(values, own, beside, elsewhere).items()},
                "llm": round(float(np.mean(list(predicted.values()))), 6),
                "people_questions": len(both),
                "llm_questions": len(predicted),
            }
            if len({judged[q] for q in both}) == 1:
                log.warning("%s: all %d questions that people judged have one value: no interval", measure, len(both))
                found[measure] |= dict.fromkeys(("low", "high", "people_low", "people_high"))
        return found


def llm_grades(collection: Collection, labels: Labels) -> dict[str, dict[str, int]]:
    """Judgements by an LLM as qrels of its questions: its grades where both it and people have several, else what it calls
    positive."""
    known = {q: of_query for q, of_query in labels.items() if q in collection.queries}
    several = any((x.grade or 0) > 1 for of_query in known.values() for x in of_query.values())
    graded = several and len({g for grades in collection.qrels.values() for g in grades.values() if g > 0}) > 1
    top = collection.positive_grade

    def grade(label: FileLabel) -> int:
        given = label.grade or 0
        if graded and label.grade is not None:
            return given
        return top * int(given >= (top if several else 1) if label.label is None else label.label)

    return {q: {d: grade(label) for d, label in of_query.items()} for q, of_query in known.items()}


def values_of(
    collection: Collection, run: Run, measures: Sequence[str], human: Sequence[str], llm: Mapping[str, Mapping[str, int]]
) -> tuple[Values, Values]:
    """Values by measure and question: of the `human` questions under people's judgements, of all questions of `llm` under
    those."""
    return by_measure(per_query(collection, run, measures, human)), values_by_llm(collection, run, measures, list(llm), llm)


def values_by_llm(
    collection: Collection, run: Run, measures: Sequence[str], query_ids: Sequence[str], llm: Mapping[str, Mapping[str, int]]
) -> Values:
    """Values by measure and question, of some questions of `llm` under its judgements."""
    others = replace(collection, qrels={q: dict(grades) for q, grades in llm.items()})
    return by_measure(per_query(others, run, measures, query_ids))


def rank_agreement(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b of the order of systems by two values; None of less than two systems, or where one says nothing."""
    if len(one) < 2:
        return None
    from scipy.stats import kendalltau  # slow to import, and commands import this file when they start

    tau = float(kendalltau(one, other).statistic)
    return None if np.isnan(tau) else round(tau, 4)


def log_estimates(title: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    rows = []
    for measure, v in found.items():
        whole = None if v["low"] is None else v["people_high"] - v["people_low"]
        narrower = f"{100 * (1 - (v['high'] - v['low']) / whole):.0f} %" if whole else None
        numbers = [v[n] for n in ("value", "low", "high", "people", "people_low", "people_high", "llm")]
        rows.append([measure, *numbers, narrower])
    log_table(log, title, COLUMNS, rows)
