"""May one rater take the place of another? Equivalence of two annotators, and an annotator among people."""

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from uar.errors import UserError
from uar.evaluation.significance import holm, randomisation, spread, t_test
from uar.evaluation.validation.question_values import Measured
from uar.evaluation.validation.raters import UNKNOWN, Rated, Rater

FEWEST = 10  # questions, below which nothing is called equal
BETTER, WORSE, EQUAL, OPEN = "better", "worse", "equal", "undecided"


def two_one_sided(differences: np.ndarray, margin: float) -> float | None:
    """p of the hypothesis that the mean of paired differences is `margin` or more from 0: the larger one of two one-sided
    t-tests (TOST; Schuirmann 1987, doi:10.1007/BF01068419). None of fewer than 10. Where all n are the same, t-tests know no
    spread: p is that of n questions in a row without another difference, if a share of at least what is left of the margin
    had one."""
    n = len(differences)
    if n < FEWEST:
        return None
    mean, error = float(differences.mean()), spread(differences) / math.sqrt(n)
    if not error:
        return (1 - max(0.0, margin - abs(mean))) ** n
    above, below = stdtr(n - 1, -(mean + margin) / error), stdtr(n - 1, (mean - margin) / error)
    return float(max(above, below))


def pairwise(raters: Mapping[str, Measured], margin: float, level: float, seed: int) -> list[dict[str, Any]]:
    """A row for each two of several raters, of the pairs that both judged, paired by question.

    `difference`: of the measure, the first less the second, with `low` and `high` of the interval of level 1 - 2 `level` that
    belongs to the test of equivalence; `p differ` by the t-test and `p randomisation`; `p equal` by `two_one_sided`; each also
    with Holm's correction over the rows. `verdict`: of the first against the second, by the corrected p of the t-test and of
    equivalence. A difference that is sure and within the margin is equal: it is too small to matter.
    """
    rows = []
    for (first, one), (second, other) in combinations(raters.items(), 2):
        both = one.known & other.known
        if both.any():
            differences = one.values(both) - other.values(both)
            tests = _tests(differences[~np.isnan(differences)], margin, level, seed)
            rows.append({"first": first, "second": second, "pairs": int(both.sum()), **tests})
    for name in ("p differ", "p randomisation", "p equal"):
        for row, p in zip(rows, holm([1.0 if row[name] is None else row[name] for row in rows]), strict=True):
            row[f"{name} (Holm)"] = None if row[name] is None else p
    for row in rows:
        row["verdict"] = _verdict(row, level)
    return rows


def _verdict(row: Mapping[str, Any], level: float) -> str:
    equal, differ = row["p equal (Holm)"], row["p differ (Holm)"]
    if equal is not None and equal < level:
        return EQUAL
    if differ is not None and differ < level:
        return BETTER if row["difference"] > 0 else WORSE
    return OPEN


def _tests(differences: np.ndarray, margin: float, level: float, seed: int) -> dict[str, Any]:
    n, mean = len(differences), float(differences.mean())
    deviation = spread(differences) if n > 1 else 0.0
    half = float(stdtrit(n - 1, 1 - level)) * deviation / math.sqrt(n) if n > 1 and (deviation or not mean) else None
    return {
        "questions": n,
        "difference": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
        "p differ": t_test(differences),
        "p randomisation": randomisation(differences, seed),
        "p equal": two_one_sided(differences, margin),
    }


def among_people(rated: Rated, run: Rater, epsilon: float, level: float) -> dict[str, Any] | None:
    """The alternative annotator test (Calderon et al. 2025, arXiv 2501.10970): is the run as close to the other people as each
    person is? None of fewer than two people.

    For person j and a pair that j, another person and the run judged, the run has the advantage where its label is that of at
    least as many of the others as j's. `advantage`: the share of these, of j's: `advantage of people`. The run wins over j
    where its share is surely above j's less `epsilon` (what j costs more), by a one-sided t-test over questions with Holm's
    correction over people. `winning_rate`: of people; from 0.5 up the run `may_replace` people.
    """
    if len(rated.people) < 2:
        return None
    rows: list[dict[str, Any]] = []
    for person in rated.people:
        others = [other for other in rated.people if other is not person]
        judged = np.sum([other.known for other in others], axis=0)
        which = person.known & run.known & (judged > 0)
        if not which.any():
            continue
        like = [sum(((other.label == r.label) & other.known).astype(int) for other in others) for r in (run, person)]
        ours, theirs = (like[0] >= like[1]).astype(float), (like[1] >= like[0]).astype(float)
        differences = rated.by_question(theirs - ours, which)
        rows.append(
            {
                "person": person.name,
                "pairs": int(which.sum()),
                "advantage": float(ours[which].mean()),
                "advantage of people": float(theirs[which].mean()),
                "p": _below(differences[~np.isnan(differences)], epsilon),
            }
        )
    if not rows:
        return None
    corrected = holm([1.0 if row["p"] is None else row["p"] for row in rows])
    for row, p in zip(rows, corrected, strict=True):
        row["p (Holm)"], row["wins"] = p, p < level
    rate = float(np.mean([row["wins"] for row in rows]))
    return {"winning_rate": rate, "may_replace": rate >= 0.5, "people": rows}


def constant(rated: Rated) -> Rater:
    """A rater that gives each passage the label that people give most: what it passes says little."""
    judged = np.any([person.known for person in rated.people], axis=0)
    mean = np.mean([person.label[person.known].mean() for person in rated.people])
    label = np.where(judged, int(mean > 0.5), UNKNOWN).astype(np.int8)
    nothing = np.full(len(label), np.nan)
    return Rater("constant", label, np.maximum(label, 0).astype(np.int32), nothing, nothing)


def _below(values: np.ndarray, bound: float) -> float | None:
    """p of the hypothesis that the mean of values up to 1 is `bound` or more; None of fewer than two. Where all n are the
    same: that of n in a row, if as large a share as a mean of `bound` takes at least had another value."""
    n = len(values)
    if n < 2:
        return None
    mean, error = float(values.mean()), spread(values) / math.sqrt(n)
    if not error:
        return ((1 - bound) / (1 - mean)) ** n if mean < bound else 1.0
    return float(stdtr(n - 1, (mean - bound) / error))


def check_options(margin: float, epsilon: float, level: float) -> None:
    """UserError for a value that no test can have."""
    for name, value, highest in (("margin", margin, 1.0), ("epsilon", epsilon, 1.0), ("level", level, 0.5)):
        if not 0 < value < highest:
            raise UserError(f"{name}={value}: a number above 0 and below {highest:g} is needed")
