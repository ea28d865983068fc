"""Scores from comparisons of two (Bradley and Terry, 1952): P(i beats j) = σ(s_i − s_j)."""

import numpy as np
from scipy.special import expit

STEPS, SMALL = 50, 1e-9


def bradley_terry(size: int, pairs: np.ndarray, wins: np.ndarray, ridge: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """(size,) scores of mean 0 and their standard errors, by Newton's method: the s of the greatest
    Σ w log σ(s_i − s_j) + (1 − w) log σ(s_j − s_i) − ridge/2 Σ s².

    pairs: (comparisons, 2) who is compared; wins: (comparisons,) w from 0 to 1, how far the first of a pair won. `ridge`
    above 0 keeps scores finite where one wins always, and those comparable that no chain of comparisons joins. ValueError
    where it is not.
    """
    if ridge <= 0:
        raise ValueError(f"ridge={ridge}: a number above 0 is needed")
    first, second = np.asarray(pairs, int).reshape(-1, 2).T
    scores = np.zeros(size)
    for _ in range(STEPS):
        p = expit(scores[first] - scores[second])
        gradient = -ridge * scores
        np.add.at(gradient, first, wins - p)
        np.add.at(gradient, second, p - wins)
        step = np.linalg.solve(_curvature(size, first, second, p, ridge), gradient)
        scores = scores + step / max(1.0, float(np.abs(step).max(initial=0.0)))  # a long step may overshoot
        if np.abs(step).max(initial=0.0) < SMALL:
            break
    p = expit(scores[first] - scores[second])
    errors = np.sqrt(np.diag(np.linalg.inv(_curvature(size, first, second, p, ridge))))
    return scores - scores.mean() if size else scores, errors


def _curvature(size: int, first: np.ndarray, second: np.ndarray, p: np.ndarray, ridge: float) -> np.ndarray:
    """(size, size) minus the second derivatives."""
    weight = p * (1 - p)
    found = np.diag(np.full(size, ridge))
    for a, b, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
        np.add.at(found, (a, b), sign * weight)
    return found
