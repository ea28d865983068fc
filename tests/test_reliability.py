"""Krippendorff's alpha, against the package of that name and his own example."""

import krippendorff
import numpy as np
import pytest

from uar.annotation.quality.reliability import alpha, alpha_with_interval

EXAMPLE = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], float)


@pytest.mark.parametrize("ordinal", [True, False])
def test_alpha_is_that_of_his_example(ordinal: bool) -> None:
    """Of two values an order says nothing. Of two people, four passages and one difference D_o = 2/8 and
    D_e = 2 · 3 · 5 / (8 · 7)."""
    assert alpha(np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]]), ordinal) == pytest.approx(8 / 15)
    assert alpha(EXAMPLE, ordinal) == pytest.approx(0.095, abs=5e-4)
    nobody = np.full((1, 10), np.nan)
    assert alpha(np.concatenate([EXAMPLE, nobody]), ordinal) == alpha(EXAMPLE, ordinal)
    assert alpha(np.concatenate([EXAMPLE[:1], nobody]), ordinal) is None
    assert alpha(np.zeros((2, 5)), ordinal) is None and alpha(nobody, ordinal) is None


@pytest.mark.parametrize("level", ["ordinal", "nominal"])
@pytest.mark.parametrize("grades", [(0, 1), (0, 1, 2, 3), (-1, 2, 7)])
def test_alpha_is_that_of_the_package_where_people_judged_parts(level: str, grades: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    truth = generator.choice(grades, 60)
    said = np.where(generator.random((4, 60)) < 0.6, truth, generator.choice(grades, (4, 60))).astype(float)
    said[generator.random(said.shape) < 0.4] = np.nan
    expected = krippendorff.alpha(reliability_data=said, level_of_measurement=level)
    found = alpha_with_interval(said, np.arange(60) // 3, level == "ordinal", 500, 0)
    assert found["alpha"] == pytest.approx(expected, abs=1e-12)
    low, high = found["intervals"]["alpha"]
    assert low < expected < high


def test_the_interval_is_over_questions() -> None:
    """Each question says the same ten times: its passages are no further evidence, those of further questions would be."""

    def width(said: np.ndarray, query: np.ndarray) -> float:
        low, high = alpha_with_interval(said, query, False, 2000, 0)["intervals"]["alpha"]
        return high - low

    often, once = np.repeat(EXAMPLE, 10, axis=1), width(EXAMPLE, np.arange(10))
    assert width(often, np.arange(100) // 10) == pytest.approx(once, rel=0.2)  # the correction of chance differs
    assert width(often, np.arange(100)) < 0.5 * once
    assert not alpha_with_interval(EXAMPLE, np.zeros(10, int), False, 2000, 0)["intervals"]
