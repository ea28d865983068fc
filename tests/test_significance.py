from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from uar.errors import UserError
from uar.evaluation.significance import compare, holm, read_scores

RNG = np.random.default_rng(0)
OTHER = {f"q{i}": float(v) for i, v in enumerate(RNG.random(40))}
BETTER = {q: min(1.0, v + 0.1 * float(RNG.random())) for q, v in OTHER.items()}


def test_p_values_are_scipys_and_corrected_over_collections():
    noise = {q: float(v) for q, v in zip(OTHER, RNG.random(40), strict=True)}
    found = compare({"a": {"AP": BETTER}, "b": {"AP": noise}}, {"a": {"AP": OTHER}, "b": {"AP": OTHER}})
    expected = stats.ttest_rel(list(BETTER.values()), list(OTHER.values()))
    ours = found["a"]["AP"]
    assert ours["p t-test"] == pytest.approx(expected.pvalue)
    assert ours["low"] <= ours["difference"] <= ours["high"] and ours["low"] > 0
    assert ours["p randomisation"] < 0.001 < 0.01 < found["b"]["AP"]["p randomisation"]
    assert ours["p t-test (Holm)"] == pytest.approx(2 * ours["p t-test"])


def test_queries_are_paired_by_id_and_the_order_does_not_matter():
    shuffled = dict(sorted(OTHER.items(), key=lambda item: item[1]))
    del shuffled["q3"]
    found = compare({"a": {"AP": BETTER}}, {"a": {"AP": shuffled}})["a"]["AP"]
    pairs = [(BETTER[q], OTHER[q]) for q in OTHER if q != "q3"]
    assert found["queries"] == 39
    assert found["difference"] == pytest.approx(np.mean([a - b for a, b in pairs]))


def test_equal_runs_do_not_differ():
    assert compare({"a": {"AP": OTHER}}, {"a": {"AP": OTHER}})["a"]["AP"]["p t-test"] == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_baseline_without_the_collection_is_told(tmp_path: Path):
    with pytest.raises(UserError, match=r"no scores of mini\.test"):
        read_scores(tmp_path, "mini.test")
