"""The weights of a fusion by which judged questions are ranked best."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from uar.collections import Collection
from uar.retrievers.fusion.methods import K, worth
from uar.storage.runs import Run

CUTOFF = 10  # of the nDCG that is made as high as it goes
STEPS = 20  # of a weight between 0 and 1


class Learned(NamedTuple):
    """`weights`: of each run, of sum 1. Mean nDCG@10: `value` with them, `equal` with equal ones, `alone` of each run."""

    weights: list[float]
    value: float
    equal: float
    alone: list[float]


class _Judged(NamedTuple):
    """One question: what each run adds to a passage's score, (passages, runs), and the passages' shares of the best DCG."""

    parts: np.ndarray
    gains: np.ndarray


def learned_weights(runs: Sequence[Run], collection: Collection, method: str = "rrf", k: int = K) -> Learned:
    """Weights on a grid of twentieths with the highest mean nDCG@10 over the questions with a positive; see `fuse` for
    `method` and `k`.

    One weight at a time goes over the grid, the others keep their proportions, until none brings more. With two runs that
    is the whole grid. Of weights that are as good those nearest to equal ones are taken.
    """
    gains = collection.gains()
    query_ids = [q for q in gains if collection.positives(q)]

    def judged(runs: Sequence[Run]) -> list[_Judged]:
        return [_judged([run.get(q, ()) for run in runs], gains[q], method, k) for q in query_ids]

    questions, one = judged(runs), np.ones((1, 1))
    weights = np.full(len(runs), 1 / len(runs))
    (equal,) = _ndcg(questions, weights[None])
    value, before = equal, -1.0
    while value > before:
        before = value
        for at in range(len(runs)):
            tried = np.array([_with(weights, at, step / STEPS) for step in range(STEPS + 1)])
            found = _ndcg(questions, tried)
            best = [step for step in range(STEPS + 1) if found[step] >= found.max() - 1e-12]
            if found.max() > value + 1e-12:
                weights = tried[min(best, key=lambda step: (abs(step / STEPS - weights[at]), step))]
                value = float(found.max())
    alone = [float(_ndcg(judged([run]), one)[0]) for run in runs]
    return Learned(weights.tolist(), float(value), float(equal), alone)


def _judged(lists: Iterable[Sequence[tuple[str, float]]], gains: dict[str, int], method: str, k: int) -> _Judged:
    parts = [dict(zip((d for d, _ in hits), worth(hits, method, k), strict=True)) for hits in lists]
    passages = sorted(set().union(*parts))  # by id, as ties fall
    highest = sorted((max(0, g) for g in gains.values()), reverse=True)[:CUTOFF]
    ideal = (np.array(highest) * _discounts(len(highest))).sum()
    return _Judged(
        np.array([[part.get(d, 0.0) for part in parts] for d in passages]).reshape(len(passages), len(parts)),
        np.array([max(0, gains.get(d, 0)) / ideal for d in passages]),
    )


def _ndcg(questions: Sequence[_Judged], weights: np.ndarray) -> np.ndarray:
    """(choices,) mean nDCG@10 of weights (choices, runs)."""
    total = np.zeros(len(weights))
    for question in questions:
        best = np.argsort(-(question.parts @ weights.T), axis=0, kind="stable")[:CUTOFF]
        total += _discounts(len(best)) @ question.gains[best]
    return total / len(questions)


def _discounts(depth: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, depth + 2))


def _with(weights: np.ndarray, at: int, value: float) -> np.ndarray:
    """The weights with that `at` a place set to `value` and the others in their proportions, so that the sum is 1."""
    others = np.delete(weights, at)
    shares = others / others.sum() if others.sum() else np.full(len(others), 1 / len(others))
    return np.insert(shares * (1 - value), at, value)
