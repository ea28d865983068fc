"""Agreement of the people who label, while they do."""

import time
from typing import Any

import krippendorff
import numpy as np

from uar.reviewing.label_database import CURRENT, LabelDatabase


class AgreementSoFar:
    """Of the passages that several people judged, whatever they saw; computed anew when something was saved since, but in
    no more than a twentieth of the time."""

    def __init__(self, database: LabelDatabase, positive_grade: int) -> None:
        self._database, self._positive_grade = database, positive_grade
        self._found: dict[str, Any] | None = None
        self._seen = -1
        self._not_before = 0.0

    def read(self, changes: int) -> dict[str, Any] | None:
        """`passages` that two or more judged, the share of pairs of people with `equal` labels, and Krippendorff's `alpha` of
        the grades, null where all are equal; None where nobody judged what another one did."""
        start = time.monotonic()
        if changes != self._seen and start >= self._not_before:
            self._found, self._seen = self._compute(), changes
            end = time.monotonic()
            self._not_before = end + 20 * (end - start)
        return self._found

    def _compute(self) -> dict[str, Any] | None:
        rows = self._database.rows(
            f"""with current as ({CURRENT}) select item, place, who, grade from current
            where (item, place) in (select item, place from current group by item, place having count(*) > 1)"""
        )
        if not rows:
            return None
        pairs, units = np.unique([(row["item"], row["place"]) for row in rows], axis=0, return_inverse=True)
        people, raters = np.unique([row["who"] for row in rows], return_inverse=True)
        table = np.full((len(people), len(pairs)), np.nan)
        table[raters, units.ravel()] = [row["grade"] for row in rows]
        return {
            "passages": len(pairs),
            "equal": equal_share(table >= self._positive_grade, ~np.isnan(table)),
            "alpha": alpha(table),
        }


def equal_share(labels: np.ndarray, known: np.ndarray) -> float:
    """The share of pairs of people, over the passages that both judged, with the same label. Both (people, passages)."""
    positive, judged = (labels & known).sum(axis=0), known.sum(axis=0)
    negative = judged - positive
    equal = positive * (positive - 1) + negative * (negative - 1)
    return float(equal.sum() / (judged * (judged - 1)).sum())


def alpha(table: np.ndarray) -> float | None:
    """Krippendorff's alpha of ordinal grades (people, passages), NaN where a person did not judge; None where it is undefined,
    since all grades are equal (Krippendorff, Content Analysis, 2004, chapter 11)."""
    if len(np.unique(table[~np.isnan(table)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal"))
