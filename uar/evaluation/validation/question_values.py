"""What raters are compared by: a measure of all pairs as a mean over questions, so that two of them are paired by question."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from uar.errors import UserError
from uar.evaluation.validation.raters import Rated, Rater

MEASURES = ("balanced_accuracy", "accuracy")


@dataclass(frozen=True)
class Measured:
    """`known`: (pairs,) which it judged; `values`: some of these pairs -> (queries,), NaN of a question without any. Their
    mean is the measure over these pairs."""

    known: np.ndarray
    values: Callable[[np.ndarray], np.ndarray]


def measured(rated: Rated, run: Rater, measure: str) -> Measured:
    """`accuracy`: the share of pairs whose label is that of most people. `balanced_accuracy`: the mean of that share among the
    pairs that are positive for people and among the others, in which one that calls nothing useful gets 0.5 however rare
    useful passages are. UserError where people gave one label alone, so that it is not defined.

    The value of question q is r + Q (x_q - r n_q) / N for a share r = X / N of pairs, where Q is the number of questions: sums
    over pairs are ratios of sums over questions, and this is their linearisation (Cochran 1977, Sampling Techniques, ch. 6).
    """
    if measure not in MEASURES:
        raise UserError(f"measure={measure}; allowed: {', '.join(MEASURES)}")
    right, people = run.label == rated.majority.label, rated.majority.label

    def share(which: np.ndarray) -> tuple[float, np.ndarray]:
        """X / N, and (queries,) (x_q - r n_q) / N."""
        pairs = np.bincount(rated.query[which], minlength=len(rated.query_ids))
        good = np.bincount(rated.query[which], right[which], minlength=len(rated.query_ids))
        ratio = float(good.sum() / pairs.sum())
        return ratio, (good - ratio * pairs) / pairs.sum()

    def values(which: np.ndarray) -> np.ndarray:
        sides = [which] if measure == "accuracy" else [which & (people == label) for label in (1, 0)]
        if not all(side.any() for side in sides):
            raise UserError(
                f"{run.name}: people gave one label alone to the passages that it judged, so that {measure} is not defined; "
                "use measure=accuracy, or unjudged=negative where they named positives alone"
            )
        ratios, deviations = zip(*map(share, sides), strict=True)
        asked = np.bincount(rated.query[which], minlength=len(rated.query_ids)) > 0
        return np.where(asked, np.mean(ratios) + asked.sum() * np.mean(deviations, axis=0), np.nan)

    return Measured(run.known & rated.majority.known, values)


def mean_of(several: Sequence[Measured]) -> Measured:
    """Of the pairs that all of them judged."""
    known = np.all([one.known for one in several], axis=0)
    return Measured(known, lambda which: np.mean([one.values(which) for one in several], axis=0))
