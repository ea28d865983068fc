"""Greedy acquisitions against the loops that their definitions are."""

import numpy as np
import pytest

from uar.acquisition import core_set_acquisition, idds_acquisition
from uar.acquisition.core_set_acquisition import core_set
from uar.acquisition.idds_acquisition import idds

WEIGHT = 0.667


def vectors(number: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around a few centres, as questions on a few subjects are."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((12, 16))
    found = centres[generator.integers(0, 12, number)] + generator.standard_normal((number, 16)) + 0.5
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def density(x: int, left: list[int], every: np.ndarray, known: np.ndarray) -> float:
    """IDDS as it is defined, in float64."""
    others = [float(every[x] @ every[y]) for y in left if y != x]
    mean_known = float((known @ every[x]).mean()) if len(known) else 0.0
    return WEIGHT * (sum(others) / len(others) if others else 0.0) - (1 - WEIGHT) * mean_known


def distance(x: int, left: list[int], every: np.ndarray, known: np.ndarray) -> float:
    return float(-(known @ every[x]).max()) if len(known) else 0.0


@pytest.mark.parametrize("labelled", [0, 7])
@pytest.mark.parametrize(("order", "worth"), [(idds, density), (core_set, distance)])
def test_each_pick_is_worth_most_by_the_definition(order, worth, labelled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idds_acquisition, "FIELD", 4)  # so that few are looked at and bounds decide
    monkeypatch.setattr(core_set_acquisition, "FIELD", 4)
    every = vectors(90 + labelled)
    free, known = every[:90], every[90:]
    picked = order(free, known, WEIGHT) if order is idds else order(free, known)
    assert sorted(picked) == list(range(90))
    free, known = free.astype(np.float64), known.astype(np.float64)
    left = list(range(90))
    for at in picked:
        worths = {x: worth(x, left, free, known) for x in left}
        assert worths[at] >= max(worths.values()) - 1e-6
        left.remove(at)
        known = np.vstack([known, free[at : at + 1]])


@pytest.mark.parametrize("order", [lambda v, n: idds(v, v[:0], WEIGHT, n), lambda v, n: core_set(v, v[:0], n)])
def test_a_shorter_order_is_the_beginning_of_a_longer_one(order, monkeypatch: pytest.MonkeyPatch) -> None:
    every = vectors(400)
    whole = order(every, None)
    assert [order(every, n) for n in (0, 1, 37, 399)] == [whole[:n] for n in (0, 1, 37, 399)]
    monkeypatch.setattr(idds_acquisition, "FIELD", 2)
    monkeypatch.setattr(core_set_acquisition, "FIELD", 2)
    assert order(every, None) == whole


def test_equal_queries_are_taken_in_their_order() -> None:
    twins = np.repeat(vectors(5), 3, axis=0)
    for picked in (idds(twins, twins[:0], WEIGHT), core_set(twins, twins[:0])):
        places = {at: place for place, at in enumerate(picked)}
        assert all(places[3 * n] < places[3 * n + 1] < places[3 * n + 2] for n in range(5))
