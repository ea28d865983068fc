"""Measures of two raters' agreement as functions of sums over pairs, so that a bootstrap computes them for all resamples at
once. Every argument is a number or an array of (resamples,); what is undefined comes out as NaN."""

import numpy as np

from uar.annotation.quality.pairs import Counts


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where the whole is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole != 0)


def prevalence(counts: Counts) -> np.ndarray:
    """The share of pairs that is positive for the other side: kappa falls with it where both raters stay as good as they are
    (Feinstein and Cicchetti 1990, doi:10.1016/0895-4356(90)90158-L)."""
    return ratio(counts["tp"] + counts["fn"], counts["tp"] + counts["fp"] + counts["fn"] + counts["tn"])


def label_rate(counts: Counts) -> np.ndarray:
    """The share of pairs that is positive for the annotator."""
    return ratio(counts["tp"] + counts["fp"], counts["tp"] + counts["fp"] + counts["fn"] + counts["tn"])


def cohen_kappa(counts: Counts) -> np.ndarray:
    """Cohen's kappa of two labels (1960, doi:10.1177/001316446002000104): (p_o - p_e) / (1 - p_e), p_o the share of equal
    labels and p_e that of two independent raters with the same margins. NaN where the other side has one label alone:
    nothing can then be told from chance (sklearn gives 0, or NaN where both have)."""
    tp, fp, fn, tn = (np.asarray(counts[name], float) for name in ("tp", "fp", "fn", "tn"))
    total = tp + fp + fn + tn
    equal_by_chance = (tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)
    kappa = ratio((tp + tn) * total - equal_by_chance, total**2 - equal_by_chance)
    return np.where((tp + fn) * (fp + tn) > 0, kappa, np.nan)


def weighted_kappa(counts: Counts) -> np.ndarray:
    """Cohen's kappa of grades with quadratic weights (1968, doi:10.1037/h0026256): 1 - D_o / D_e, D_o the mean squared
    difference of the two grades of a pair and D_e that of independent raters with the same margins. With x and y the grades,
    D_e = mean(x² + y²) - 2 mean(x) mean(y), so that sums are enough. NaN where all grades on both sides are equal."""
    total = counts["tp"] + counts["fp"] + counts["fn"] + counts["tn"]
    by_chance = counts["squares"] - 2 * ratio(counts["grades"] * counts["other_grades"], total)
    return 1 - ratio(counts["squared_differences"], by_chance)


def comparable(ours: tuple[int, int], theirs: tuple[int, int]) -> bool:
    """Whether two scales (lowest, highest grade) may be set against each other grade by grade: they run over the same range
    and have more than two grades. A 2 of 0-2 and a 2 of 0-3 do not mean the same, and no rescaling is guessed at; of two
    grades the labels say all."""
    return ours == theirs and ours[1] - ours[0] > 1
