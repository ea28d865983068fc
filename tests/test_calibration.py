"""Temperature scaling and the measures of calibration."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from uar.annotation.quality.calibration import (
    brier,
    calibration,
    expected_calibration_error,
    fit_temperature,
    probability,
    reliability,
)

NONE = float("-inf")


def test_the_probability_by_hand() -> None:
    logprobs = np.log([[0.1, 0.2, 0.3], [0.4, 0.3, 0.1]])  # other tokens had the rest
    assert probability(logprobs, 1) == pytest.approx([5 / 6, 4 / 8])
    assert probability(logprobs, 2) == pytest.approx([3 / 6, 1 / 8])
    halves = np.sqrt([[0.1, 0.2, 0.3], [0.4, 0.3, 0.1]])
    assert probability(logprobs, 2, 2.0) == pytest.approx(halves[:, 2] / halves.sum(axis=1))


def test_a_grade_without_a_probability_is_none_and_nothing_at_all_is_uniform() -> None:
    logprobs = np.array([[0.0, NONE, NONE], [NONE, NONE, -3.0], [NONE, NONE, NONE]])
    assert probability(logprobs, 1, 0.5) == pytest.approx([0, 1, 2 / 3])


@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found(planted: float) -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(0, 1.5, (20_000, 4))
    human = rng.random(20_000) < probability(true, 2)
    assert fit_temperature(true * planted, 2, human) == pytest.approx(planted, rel=0.08)


def test_calibrated_probabilities_have_less_error() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(0, 1, (20_000, 3))
    human = rng.random(20_000) < probability(true, 1)
    told = calibration(5 * true, 1, human, fit_temperature(5 * true, 1, human))
    assert told["temperature"] == pytest.approx(5, rel=0.1) and told["pairs"] == 20_000
    assert told["before"]["expected_calibration_error"] > 0.1 > 0.02 > told["after"]["expected_calibration_error"]
    assert told["before"]["brier"] > told["after"]["brier"]
    assert sum(row["pairs"] for row in told["after"]["reliability"]) == 20_000


def test_the_fit_stands_impossible_grades() -> None:
    rng = np.random.default_rng(4)
    true = rng.normal(0, 1.5, (20_000, 3))
    human = rng.random(20_000) < probability(true, 1)
    logprobs = 2 * true
    logprobs[:200, 1:] = NONE  # certain of grade 0, right or wrong
    logprobs[200:400] = NONE
    assert fit_temperature(logprobs, 1, human) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("human", [[0, 0], [1, 1], []])
def test_one_class_alone_fits_nothing(human: list[int]) -> None:
    assert fit_temperature(np.zeros((len(human), 2)), 1, np.array(human)) == 1.0


def test_hopeless_labels_stay_within_the_bounds() -> None:
    logprobs = np.array([[0.0, 5.0], [5.0, 0.0]] * 10)
    assert 19 < fit_temperature(logprobs, 1, np.array([0, 1] * 10)) <= 20
    assert 0.05 <= fit_temperature(logprobs, 1, np.array([1, 0] * 10)) < 0.4


def test_the_measures_by_hand() -> None:
    p, y = np.array([0.0, 0.1, 0.15, 0.95, 1.0]), np.array([0, 1, 0, 1, 1])
    assert brier(p, y) == pytest.approx((0.81 + 0.0225 + 0.0025) / 5) == pytest.approx(brier_score_loss(y, p))
    rows = reliability(p, y)
    assert [(r["above"], r["upto"], r["pairs"]) for r in rows] == [(0.0, 0.1, 2), (0.1, 0.2, 1), (0.9, 1.0, 2)]
    assert [r["probability"] for r in rows] == pytest.approx([0.05, 0.15, 0.975])
    assert [r["positives"] for r in rows] == [0.5, 0.0, 1.0]
    assert expected_calibration_error(p, y) == pytest.approx((2 * 0.45 + 0.15 + 2 * 0.025) / 5)
    assert expected_calibration_error(p, y, bins=1) == pytest.approx(abs(3 / 5 - p.mean()))


@pytest.mark.parametrize(
    ("logprobs", "positive", "temperature"),
    [
        ([[0.0, np.nan]], 1, 1.0),
        ([[0.0, np.inf]], 1, 1.0),
        ([0.0, 1.0], 1, 1.0),
        ([[0.0, 1.0]], 0, 1.0),
        ([[0.0, 1.0]], 2, 1.0),
        ([[0.0, 1.0]], 1, 0.0),
    ],
)
def test_what_is_no_probability_is_refused(logprobs: list, positive: int, temperature: float) -> None:
    with pytest.raises(ValueError, match="needed|1 <= positive < grades"):
        probability(np.array(logprobs), positive, temperature)
