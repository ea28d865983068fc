"""How people agree with each other, and how fast they are."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from uar.annotation.quality.bootstrap import estimates
from uar.annotation.quality.kappa import cohen_kappa, ratio, weighted_kappa
from uar.annotation.quality.pairs import Counts, counted
from uar.annotation.quality.reliability import alpha_with_interval
from uar.reviewing.agreement_so_far import equal_share
from uar.reviewing.judged_rows import JudgedRows


def people_agreement(rows: JudgedRows, resamples: int, seed: int) -> dict[str, Any] | None:
    """Of the passages that two or more people judged; None where there is none. `rows`: judgements of people who saw no
    suggestion, which would make them alike.

    `passages`, `equal_labels` (share of pairs of people), Krippendorff's `alpha` of grades (ordinal), null where it is
    undefined, and `pairs`: of each two people the passages, `equal_labels`, `kappa` (Cohen's, of labels) and `weighted_kappa`
    (of grades). `intervals` of all are by bootstrap over questions.
    """
    grades = _by_person(rows)
    shared = (~np.isnan(grades)).sum(axis=0) > 1
    if not shared.any():
        return None
    known = ~np.isnan(grades[:, shared])
    labels = _by_person(rows, rows.label.astype(float))[:, shared] == 1
    return {
        "passages": int(shared.sum()),
        "equal_labels": equal_share(labels, known),
        **alpha_with_interval(grades, _query(rows, grades.shape[1]), True, resamples, seed),
        "pairs": list(_pairs(rows, grades, resamples, seed)),
    }


def by_person(rows: JudgedRows) -> list[dict[str, Any]]:
    """Of each person: number of judgements, median seconds, shares that are positive, unsure, and made with a suggestion."""
    found = []
    for place, name in enumerate(rows.people):
        own = rows.of(rows.person == place)
        if not len(own.label):
            continue
        seconds, sure = own.seconds[~np.isnan(own.seconds)], own.confidence[~np.isnan(own.confidence)]
        found.append(
            {
                "who": name,
                "judgements": len(own.label),
                "median_seconds": round(float(np.median(seconds)), 2) if len(seconds) else None,
                "positive": float(own.label.mean()),
                "unsure": float(1 - sure.mean()) if len(sure) else None,
                "suggestion_shown": float(own.shown.mean()),
            }
        )
    return found


def _by_person(rows: JudgedRows, values: np.ndarray | None = None) -> np.ndarray:
    """(people, passages) of grades or other values; NaN where a person did not judge."""
    table = np.full((len(rows.people), int(rows.passage.max(initial=-1)) + 1), np.nan)
    table[rows.person, rows.passage] = rows.grade if values is None else values
    return table


def _query(rows: JudgedRows, passages: int) -> np.ndarray:
    """(passages,) the question of each."""
    query = np.zeros(passages, np.int64)
    query[rows.passage] = rows.query
    return query


def _pairs(rows: JudgedRows, grades: np.ndarray, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    labels = _by_person(rows, rows.label.astype(float))
    query = _query(rows, grades.shape[1])
    for one, other in combinations(range(len(rows.people)), 2):
        both = ~np.isnan(grades[one]) & ~np.isnan(grades[other])
        if both.any():
            two = [one, other]
            found = estimates(_counts(labels[two][:, both], grades[two][:, both], query[both]), _measures, resamples, seed)
            yield {"people": [rows.people[one], rows.people[other]], "passages": int(both.sum()), **found}


def _counts(labels: np.ndarray, grades: np.ndarray, query: np.ndarray) -> Counts:
    """Sums a question of what two people gave, each (2, passages): cells of the labels, and what weighted kappa is a function
    of."""
    _, place = np.unique(query, return_inverse=True)
    values = counted(*(labels == 1), *grades)
    return {name: np.bincount(place, value.astype(float)) for name, value in values.items()}


def _measures(sums: Counts) -> Counts:
    total = sums["tp"] + sums["fp"] + sums["fn"] + sums["tn"]
    return {
        "equal_labels": ratio(sums["tp"] + sums["tn"], total),
        "kappa": cohen_kappa(sums),
        "weighted_kappa": weighted_kappa(sums),
    }
