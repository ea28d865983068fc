"""Paired tests against a baseline: SciPy's values, corrections by hand, and what cannot be compared."""

import json
import logging
import re
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import metrics, ok
from scipy import stats

from uar.collections.presets import expand
from uar.collections.reference import slug as slug_of
from uar.errors import DataError, UserError
from uar.evaluation.baseline import Baseline
from uar.evaluation.significance import (
    compare,
    holm,
    note_untested,
    randomisation,
    read_scores,
    table_of,
)
from uar.evaluation.validation.replacement import two_one_sided
from uar.storage.files import write_json

RNG = np.random.default_rng(0)
OTHER = {f"q{i}": float(v) for i, v in enumerate(RNG.random(40))}
BETTER = {q: min(1.0, v + 0.1 * float(RNG.random())) for q, v in OTHER.items()}
NOISE = {q: float(v) for q, v in zip(OTHER, RNG.random(40), strict=True)}


def one(ours: dict[str, float], other: dict[str, float]) -> dict:
    return compare({"a": {"AP": ours}}, {"a": {"AP": other}})["a"]["AP"]


def test_values_are_scipys_and_corrected_over_collections():
    found = compare({"a": {"AP": BETTER}, "b": {"AP": NOISE}}, {"a": {"AP": OTHER}, "b": {"AP": OTHER}})
    for slug, values in (("a", BETTER), ("b", NOISE)):
        ours = found[slug]["AP"]
        expected = stats.ttest_rel(list(values.values()), list(OTHER.values()))
        interval = expected.confidence_interval(0.95)
        assert ours["p t-test"] == pytest.approx(expected.pvalue, rel=1e-9)
        assert (ours["low"], ours["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
        assert ours["effect size"] == pytest.approx(expected.statistic / np.sqrt(40), rel=1e-9)  # t = d * sqrt(n)
    ours = found["a"]["AP"]
    assert ours["p randomisation"] < 0.001 < 0.01 < found["b"]["AP"]["p randomisation"]
    assert ours["p t-test (Holm)"] == pytest.approx(2 * ours["p t-test"])
    assert ours["p randomisation (Holm)"] == pytest.approx(2 * ours["p randomisation"])
    assert (ours["mark"], found["b"]["AP"]["mark"]) == ("+", "")
    assert one(OTHER, BETTER)["mark"] == "−"


@pytest.mark.parametrize("n", [2, 5, 13])
def test_few_queries_give_scipys_exact_randomisation(n: int):
    differences = np.random.default_rng(n).choice([-0.5, 0.0, 0.25, 1.0], n) + np.arange(n) / 10
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True
    ).pvalue
    assert randomisation(differences, 0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.06])
def test_many_queries_give_scipys_randomisation_within_monte_carlo_error(shift: float):
    differences = np.random.default_rng(1).normal(shift, 0.3, 300)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True, rng=2
    ).pvalue
    error = 4 * np.sqrt(2 * expected * (1 - expected) / 10_000) + 2e-4
    assert randomisation(differences, 0) == pytest.approx(expected, abs=error)
    assert randomisation(differences, 0) == randomisation(differences, 0) != randomisation(differences, 1)


def test_thousands_of_queries_take_little_memory():
    differences = np.random.default_rng(1).normal(0.01, 0.3, 7_000)
    tracemalloc.start()
    randomisation(differences, 0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100e6  # all flips at once would be 560 MB


def test_queries_are_paired_by_id_and_the_order_does_not_matter(caplog: pytest.LogCaptureFixture):
    shuffled = dict(sorted(OTHER.items(), key=lambda item: item[1])) | {"q100": 1.0, "q101": 0.0}
    del shuffled["q3"]
    with caplog.at_level(logging.WARNING):
        found = one(BETTER, shuffled)
    assert found["queries"] == 39 and found["left_out"] == {"ours": 1, "baseline": 2}
    assert found["difference"] == pytest.approx(np.mean([BETTER[q] - OTHER[q] for q in OTHER if q != "q3"]))
    assert "over 39 queries; 1 only this run has and 2 only the baseline has are left out" in caplog.text


def test_equal_runs_do_not_differ():
    found = one(OTHER, OTHER)
    assert (found["p t-test"], found["p randomisation"], found["effect size"], found["mark"]) == (1.0, 1.0, 0.0, "")
    assert found["low"] == found["high"] == 0.0


def test_one_query_has_no_t_test_and_does_not_count_in_the_correction():
    found = compare({"a": {"AP": {"q": 1.0}}, "b": {"AP": BETTER}}, {"a": {"AP": {"q": 0.0}}, "b": {"AP": OTHER}})
    alone = found["a"]["AP"]
    assert alone["p t-test"] is alone["p t-test (Holm)"] is alone["low"] is alone["effect size"] is None
    assert alone["p randomisation"] == 1.0 and alone["difference"] == 1.0
    assert found["b"]["AP"]["p t-test (Holm)"] == found["b"]["AP"]["p t-test"]
    assert table_of(found["a"]) == [["AP", "+1.0000", "not defined", "1"]]
    assert "NaN" not in json.dumps(found)


@pytest.mark.parametrize(("n", "p", "mark"), [(2, 0.5, ""), (5, 0.0625, ""), (6, 0.03125, "+"), (30, 2**-29, "+")])
def test_a_difference_that_is_always_the_same_is_as_sure_as_its_signs(n: int, p: float, mark: str):
    found = one({f"q{i}": 0.5 for i in range(n)}, {f"q{i}": 0.25 for i in range(n)})
    assert (found["p t-test"], found["mark"], found["difference"]) == (p, mark, 0.25)
    assert found["p randomisation"] == pytest.approx(p if n < 30 else 2 / 10_001)
    assert found["low"] is found["high"] is found["effect size"] is None


@pytest.mark.parametrize("n", [10, 11, 12])  # of some numbers of 0.1 the deviation is 0, of others 1.5e-17
def test_what_is_always_the_same_but_for_rounding_has_no_spread(n: int):
    found = one({f"q{i}": 0.3 for i in range(n)}, {f"q{i}": 0.2 for i in range(n)})
    assert found["effect size"] is None and found["p t-test"] == 2.0 ** (1 - n)
    assert two_one_sided(np.full(n, 0.3 - 0.2), 0.2) == pytest.approx(0.9**n)


def test_measures_that_the_baseline_lacks_are_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        found = compare({"a": {"AP": BETTER, "F1": BETTER}}, {"a": {"AP": OTHER}})
    assert set(found["a"]) == {"AP"} and "the baseline has no F1 of these queries" in caplog.text


def test_no_query_in_common_is_an_error():
    with pytest.raises(UserError, match="a: this run and the baseline have no query"):
        one(OTHER, {"x1": 1.0})


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_baselines_that_cannot_be_read_are_told(tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        read_scores(tmp_path / "nowhere", "mini.test")
    with pytest.raises(UserError, match=r"no scores of mini\.test \(it has none\)"):
        read_scores(tmp_path, "mini.test")
    path = tmp_path / "scores" / "mini.test.parquet"
    path.parent.mkdir()
    path.write_text("not a table")
    with pytest.raises(DataError, match=r"mini\.test\.parquet: not a table"):
        read_scores(tmp_path, "mini.test")
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(DataError, match=r"mini\.test\.parquet: not a table"):
        read_scores(tmp_path, "mini.test")


def test_the_command_compares_run_folders(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path):
    scored = ["collections=[mini:test,mini:ood]", "rag=off"]
    ok(command("uar.evaluate", "retriever=bm25", *scored, "hydra.run.dir=base"))
    told_of = ok(command("uar.evaluate", "retriever=minilm_l3", *scored, "baseline=base", "hydra.run.dir=ours"))
    found = json.loads((tmp_path / "ours" / "significance.json").read_text())
    assert set(found) == {"mini.test", "mini.ood"}
    for slug, values in found.items():
        assert set(values) == {"nDCG@10", "RR@10", "R@100", "AP"}
        ours, base = (metrics(tmp_path / n)["retrieval"][slug] for n in ("ours", "base"))
        for name, v in values.items():
            assert v["difference"] == pytest.approx(ours[name] - base[name], abs=1e-9)
            assert v["p t-test"] <= v["p t-test (Holm)"] <= 1
            assert (v["mark"] != "") == (v["p t-test (Holm)"] < 0.05)
            shown = re.search(rf"{slug} against base\n(.*\n)*?│ {name} +│ +([^ ]+) │", told_of)
            assert shown and shown[2] == f"{v['difference']:+.4f}{v['mark']}"


def test_the_parts_of_a_set_that_counts_as_one_are_one_test():
    parts = [slug_of(reference) for reference in expand("beir-cqadupstack")]
    ours = {part: {"AP": {"q1": 0.5 + at / 100, "q2": 0.5}} for at, part in enumerate(parts)}
    theirs = {part: {"AP": {"q1": 0.5, "q2": 0.4}} for part in parts}
    found = compare({"a": {"AP": BETTER}, **ours}, {"a": {"AP": OTHER}, **theirs})
    assert list(found) == ["a", "beir-cqadupstack"]
    together = found["beir-cqadupstack"]["AP"]
    assert together["queries"] == 24
    assert together["difference"] == pytest.approx((sum(range(12)) / 100 + 12 * 0.1) / 24)
    assert found["a"]["AP"]["p t-test (Holm)"] == pytest.approx(2 * found["a"]["AP"]["p t-test"])
    del ours[parts[0]], theirs[parts[0]]
    assert set(compare(ours, theirs)) == set(parts[1:])


def test_a_baseline_that_was_not_measured_alike_is_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    base, ours = tmp_path / "base", tmp_path / "ours"
    for folder, values in ((base, OTHER), (ours, BETTER)):
        for slug in ("a", "b"):
            (folder / "scores").mkdir(parents=True, exist_ok=True)
            rows = [{"query_id": q, "measure": "AP", "value": v} for q, v in values.items()]
            pq.write_table(pa.Table.from_pylist(rows), folder / "scores" / f"{slug}.parquet")
    assert set(Baseline(base, {"a": "1", "b": "2"}).compared(ours)) == {"a", "b"}  # neither says how it was measured
    write_json(base / "manifest.json", {"collections": {"a": "1", "b": "2"}, "measured": {"passage_length": 64}})
    with pytest.raises(UserError, match="was measured on other texts, questions or judgements of b; evaluate it anew"):
        Baseline(base, {"a": "1", "b": "3"})
    write_json(ours / "manifest.json", {"collections": {"a": "1", "b": "2"}, "measured": {"retrieval_depth": 100}})
    assert Baseline(base, {"a": "1", "b": "2"}).compared(ours)["a"]["AP"]["mark"] == "+"
    write_json(ours / "manifest.json", {"measured": {"passage_length": 256}})
    assert Baseline(base, {"a": "1"}).compared(ours) == {}
    assert (
        f"a: not compared with {base}, as they were not measured alike: passage length (256: this run, 64: {base})"
        in caplog.text
    )


def test_measures_without_a_test_are_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        note_untested({"a": {"EM": {}, "AP": {}}}, {"a": {"EM": 0.1, "BLEU-4": 0.2, "questions": 3, "oracle": {"EM": 1.0}}})
    assert caplog.messages == ["BLEU-4: values of all questions together, which are not tested"]
