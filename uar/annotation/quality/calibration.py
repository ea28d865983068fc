"""Probabilities from the log-likelihoods of grades, and how well they are calibrated to people's judgements."""

from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp

TEMPERATURES = (0.05, 20.0)
LEAST = np.log(1e-12)  # log-probability that a certain and wrong answer is charged with, so that the likelihood stays finite


def probability(logprobs: np.ndarray, positive: int, temperature: float = 1.0) -> np.ndarray:
    """(pairs,) P(grade >= positive): Σ_{g >= positive} softmax(logprobs / T)_g, renormalised over the grades.

    `logprobs`: (pairs, grades) in nat, from the lowest grade up; -inf where a grade got none; a row with nothing else says
    nothing and counts as uniform. `positive`: column of the lowest positive grade, from 1. Sources: expected relevance from
    grade tokens, DIRAS (arXiv 2406.14162); temperature, Guo et al. 2017 (arXiv 1706.04599). ValueError on NaN or +inf, a
    temperature that is not above 0, or a column that leaves one side without grades.
    """
    return np.exp(_log_probabilities(_sound(logprobs, positive), positive, temperature)[0])


def fit_temperature(logprobs: np.ndarray, positive: int, human: np.ndarray) -> float:
    """The T of 0.05-20 that makes people's labels likeliest: argmin_T -Σ_i log P_T(human_i), searched on log T (temperature
    scaling, arXiv 1706.04599, with the grades summed to two classes first). `human`: (pairs,) of 0/1. 1.0, not fitted, where
    `human` has one class alone: the likelihood then has no inner maximum."""
    from scipy.optimize import minimize_scalar  # slow to import, for every annotate command

    logprobs, human = _sound(logprobs, positive), np.asarray(human) > 0
    if human.all() or not human.any():
        return 1.0

    def loss(log_temperature: float) -> float:
        yes, no = _log_probabilities(logprobs, positive, float(np.exp(log_temperature)))
        return -float(np.maximum(np.where(human, yes, no), LEAST).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Mean of (p - y)²; `p`, `y`: (pairs,), y of 0/1 (Brier 1950)."""
    return float(np.mean((np.asarray(p) - np.asarray(y)) ** 2))


def reliability(p: np.ndarray, y: np.ndarray, bins: int = 10) -> list[dict[str, Any]]:
    """Rows of a reliability diagram: of each bin that is not empty its bounds `above` and `upto`, the mean `probability`, the
    share of `positives` and the number of `pairs`. Bins are of equal width, (m/M, (m+1)/M]; 0 is in the first."""
    p, y = np.asarray(p, float), np.asarray(y, float)
    which = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    pairs, sums, positives = (np.bincount(which, weights, minlength=bins) for weights in (np.ones_like(p), p, y))
    return [
        {
            "above": float(m / bins),
            "upto": float((m + 1) / bins),
            "probability": float(sums[m] / pairs[m]),
            "positives": float(positives[m] / pairs[m]),
            "pairs": int(pairs[m]),
        }
        for m in np.flatnonzero(pairs)
    ]


def expected_calibration_error(p: np.ndarray, y: np.ndarray, bins: int = 10) -> float:
    """ECE = Σ_m |B_m| / n · |share of positives in B_m - mean p in B_m| over bins of equal width (arXiv 1706.04599, eq. 3,
    for the probability of the positive class)."""
    rows = reliability(p, y, bins)
    return sum(r["pairs"] * abs(r["positives"] - r["probability"]) for r in rows) / sum(r["pairs"] for r in rows)


def calibration(logprobs: np.ndarray, positive: int, human: np.ndarray, temperature: float) -> dict[str, Any]:
    """The JSON of a calibration: `temperature`, `pairs`, and for `before` (T = 1) and `after` (at `temperature`) `brier`,
    `expected_calibration_error` and `reliability`. On the pairs that the temperature was fitted on, `after` flatters."""
    report: dict[str, Any] = {"temperature": temperature, "pairs": len(human)}
    for name, value in (("before", 1.0), ("after", temperature)):
        p = probability(logprobs, positive, value)
        report[name] = {
            "brier": brier(p, human),
            "expected_calibration_error": expected_calibration_error(p, human),
            "reliability": reliability(p, human),
        }
    return report


def _sound(logprobs: np.ndarray, positive: int) -> np.ndarray:
    """The log-probabilities as they are summed, with rows of nothing but -inf made uniform."""
    values = np.asarray(logprobs, float)
    if values.ndim != 2 or not 1 <= positive < values.shape[1]:
        raise ValueError(
            f"logprobs of shape {values.shape} and positive={positive}: (pairs, grades) and 1 <= positive < grades"
        )
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("logprobs hold NaN or +inf; finite values or -inf are needed")
    return np.where(np.isneginf(values).all(axis=1, keepdims=True), 0.0, values)


def _log_probabilities(logprobs: np.ndarray, positive: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """(pairs,) log P(grade >= positive) and log P(grade < positive)."""
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: a number above 0 is needed")
    scaled = log_softmax(logprobs / temperature, axis=1)
    return logsumexp(scaled[:, positive:], axis=1), logsumexp(scaled[:, :positive], axis=1)
