"""Agreement of the people who label, while they do."""

from typing import Any

import numpy as np

from uar.annotation.quality.reliability import alpha
from uar.reviewing.label_database import CURRENT, LabelDatabase


def agreement_so_far(database: LabelDatabase, positive_grade: int) -> dict[str, Any] | None:
    """Of the passages that several people judged, whatever they saw; None where there is none. `passages`: their number;
    `equal`: the share of pairs of people with the same label; Krippendorff's `alpha` of the grades, null where all are
    equal."""
    rows = database.look(
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
        "equal": equal_share(table >= positive_grade, ~np.isnan(table)),
        "alpha": alpha(table, ordinal=True),
    }


def equal_share(labels: np.ndarray, known: np.ndarray) -> float:
    """The share of pairs of people, over the passages that both judged, with the same label. Both (people, passages)."""
    positive, judged = (labels & known).sum(axis=0), known.sum(axis=0)
    negative = judged - positive
    equal = positive * (positive - 1) + negative * (negative - 1)
    return float(equal.sum() / (judged * (judged - 1)).sum())
