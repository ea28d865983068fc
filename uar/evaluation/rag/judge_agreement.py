"""How far judged measures agree with those that compare with gold answers, over the questions that have both."""

import math
from collections.abc import Mapping

Agreement = dict[str, dict[str, dict[str, float | None]]]
FEWEST = 3  # questions, of which a correlation is told


def agreement(judged: Mapping[str, Mapping[str, float]], gold: Mapping[str, Mapping[str, float]]) -> Agreement:
    """By judged measure and gold one: `questions` with both values, Pearson's `correlation` and Kendall's `tau` (b) of the
    values. None where it is not defined: of fewer than three questions, or where either has one value for all."""
    from scipy.stats import kendalltau, pearsonr  # slow to import, and only here needed

    found: Agreement = {}
    for ours, values in judged.items():
        for theirs, others in gold.items():
            both = [(values[q], others[q]) for q in values if q in others]
            xs, ys = [x for x, _ in both], [y for _, y in both]
            defined = len(both) >= FEWEST and len(set(xs)) > 1 and len(set(ys)) > 1
            found.setdefault(ours, {})[theirs] = {
                "questions": len(both),
                "correlation": _number(pearsonr(xs, ys).statistic) if defined else None,
                "tau": _number(kendalltau(xs, ys).statistic) if defined else None,
            }
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
