"""Clicks and an LLM together, on a simulated log: position bias, frequent and rare queries."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_clicks import write_clicks
from simulated_judges import collection_of, context_of, selecting, truth_of, values_of
from sklearn.metrics import roc_auc_score
from written_runs import rows_in, write_run

from uar.annotation.annotators import Judgement
from uar.collections import open_collection
from uar.collections.click_log import read_clicks
from uar.collections.frequency_bands import BANDS, bands, frequencies
from uar.errors import DataError, UserError
from uar.labels import ClickLabels, ClickLLMLabels, LabelContext, LabelSource, LLMLabels
from uar.losses import kl
from uar.reporting.band_table import band_table

Pairs = Mapping[tuple[str, str], float]


def masses(source: LabelSource, context: LabelContext) -> tuple[Pairs, Pairs]:
    """By pair, the weight with which the rows call it positive, and their utilities: what a loss of labels and one of
    utilities learn."""
    labels, utilities = dict[tuple[str, str], float](), dict[tuple[str, str], float]()
    for stage in source.stages(context):
        for example in stage.examples:
            for pair in example.pairs():
                at = example.query_id, pair.doc_id
                labels[at] = labels.get(at, 0.0) + example.weight * pair.label
                utilities[at] = pair.utility or 0.0
    return labels, utilities


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_together_they_are_at_least_as_good_as_either_in_head_torso_and_tail(tmp_path: Path, seed: int):
    """Label quality: AUROC of what is learned against what is true."""
    truth = truth_of(queries=300, seed=seed)
    collection = collection_of(tmp_path / "known", truth)
    judged = selecting(truth, misses=0.15, wrong=0.15, seed=seed)
    context = replace(context_of(collection), judgements=lambda: judged)
    log = write_clicks(tmp_path / "clicks.tsv", truth, seed)
    asked = frequencies((r.query_id, r.doc_id, r.impressions) for r in read_clicks(log, collection))
    of = bands(asked, truth)

    def quality(found: Pairs, band: str) -> float:
        own = {q: useful for q, useful in truth.items() if of[q] == band}
        return float(roc_auc_score(*values_of(own, lambda q, d: found.get((q, d), 0.0))))

    clicks, rates = masses(ClickLabels(str(log)), context)
    llm, _ = masses(LLMLabels(), context)
    weighted, _ = masses(ClickLLMLabels(str(log)), context)
    _, fused = masses(ClickLLMLabels(str(log), "fused"), context)
    for band in BANDS:
        assert quality(weighted, band) > max(quality(clicks, band), quality(llm, band)) - 0.01
        assert quality(fused, band) > max(quality(rates, band), quality(llm, band)) - 0.01
    assert quality(clicks, "head") > quality(llm, "head") and quality(llm, "tail") > quality(rates, "tail")


JUDGED = {
    "q1": [Judgement("d2", 1, 1, 0.9, 1), Judgement("d1", 0, 0, 0.1, 2)],
    "q3": [Judgement("d3", 1, 1, 0.8, 1), Judgement("d4", 0, 0, 0.2, 2)],
}
LOG = "q1\td1\t150\t90\t1\nq1\td2\t150\t3\t1\nq1\td5\t150\t2\t1\nq2\td2\t30\t20\t1\n"


@pytest.fixture
def context(folder: Path) -> LabelContext:
    collection = open_collection(f"local:{folder}:train")

    def pools(query_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {q: ["d1"] for q in query_ids}

    return LabelContext(collection, list(collection.queries), pools, lambda: JUDGED, seed=0)


@pytest.fixture
def log(tmp_path: Path) -> str:
    (tmp_path / "clicks.tsv").write_text(LOG)
    return str(tmp_path / "clicks.tsv")


def test_rows_have_the_weights_of_their_frequency_and_contradict_nowhere(context: LabelContext, log: str):
    (stage,) = ClickLLMLabels(log).stages(context)
    rows = {(e.query_id, e.source): e for e in stage.examples}
    clicks, llm = rows["q1", "clicks"], rows["q1", "llm"]
    assert (clicks.weight, llm.weight) == (150 / 200, 1 - 150 / 200)
    assert (clicks.positives, clicks.negatives, clicks.ignored) == (("d1",), ("d5",), ("d2",))
    assert (llm.positives, llm.negatives, llm.ignored) == (("d2",), (), ("d1",))
    assert rows["q2", "clicks"].weight == 30 / 80 and ("q2", "llm") not in rows
    assert rows["q3", "llm"].weight == 1.0  # nobody asked it
    (stage,) = ClickLLMLabels(log, kappa=150).stages(context)
    assert stage.examples[0].weight == 0.5


def test_a_schedule_is_the_llm_and_then_clicks(context: LabelContext, log: str):
    llm, clicks = ClickLLMLabels(log, "schedule").stages(context)
    assert (llm.name, [e.weight for e in llm.examples]) == ("llm", [1.0, 1.0])
    assert (clicks.name, [e.weight for e in clicks.examples]) == ("clicks", [0.75, 0.375])
    assert clicks.examples[0].ignored == ("d2",)


def test_fused_rates_are_smoothed_by_what_the_llm_says(context: LabelContext, tmp_path: Path):
    """Of 110 looks at what the LLM calls useful 44 are clicks, of 100 at what it does not, 10."""
    path = tmp_path / "clicks.tsv"
    path.write_text("q1\td2\t110\t44\t1\nq1\td1\t100\t10\t1\nq1\td5\t90\t60\t1\n")
    (stage,) = ClickLLMLabels(str(path), "fused", kappa=10).stages(context)
    first, third = stage.examples
    assert first.utilities() == {
        "d5": pytest.approx((60 + 10 * 0.25) / 100),
        "d2": pytest.approx((44 + 4) / 120),
        "d1": pytest.approx((10 + 1) / 110),
    }
    assert (first.positives, first.negatives) == (("d5", "d2"), ("d1",))
    assert third.utilities() == {"d3": pytest.approx(0.4), "d4": pytest.approx(0.1)} and third.positives == ("d3",)
    stage.check(kl)
    path.write_text("q1\td2\t100\t10\t1\nq1\td1\t100\t40\t1\n")
    with pytest.raises(UserError, match="clicked no more often than others .*use weighted"):
        ClickLLMLabels(str(path), "fused").stages(context)


def test_faults_are_one_line(context: LabelContext, log: str, tmp_path: Path):
    for options, fault in (({"strategy": "sum"}, "weighted, fused, schedule"), ({"kappa": 0.0}, "kappa=0.0")):
        with pytest.raises(UserError, match=fault):
            ClickLLMLabels(log, **options).stages(context)
    (tmp_path / "odd.tsv").write_text(LOG + "q1\tdx\t5\t1\t1\n")
    with pytest.raises(DataError, match="odd.tsv:5: passage id 'dx' is not in the corpus"):
        ClickLLMLabels(str(tmp_path / "odd.tsv")).stages(context)
    (tmp_path / "other.tsv").write_text("qx\td1\t5\t1\t1\n")
    with pytest.raises(UserError, match="no query of .* has a click"):
        ClickLLMLabels(str(tmp_path / "other.tsv")).stages(context)


def test_bands_are_cut_by_how_often_queries_are_asked(context: LabelContext, log: str, caplog: pytest.LogCaptureFixture):
    asked = {f"q{n}": 100 - n for n in range(10)} | {"q3": 98}
    of = bands(asked, [*asked, *(f"never{n}" for n in range(10))])
    assert [q for q, band in of.items() if band == "head"] == ["q0", "q1"]
    assert sorted(q for q, band in of.items() if band == "torso") == ["q2", "q3", "q4", "q5", "q6", "q7"]
    assert bands({"a": 5}, ["a", "b"]) == {"a": "torso", "b": "tail"} and bands({}, ["a"]) == {"a": "tail"}
    assert frequencies([("q", "a", 3), ("q", "a", 4), ("q", "b", 5)]) == {"q": 7}
    caplog.set_level(logging.INFO)
    ClickLLMLabels(log).stages(context)
    assert "torso: 1 queries, asked 150 to 150 times; 1 have clicks, 1 LLM labels; clicks weigh 0.75" in caplog.text


def test_a_report_has_scores_by_band(tmp_path: Path):
    values = {f"q{n}": n / 10 for n in range(10)}
    for name, plus in (("one", 0.0), ("two", 0.1)):
        scores = {"toy.test": {"nDCG@10": {q: v + plus for q, v in values.items()}}}
        write_run(tmp_path / name, {"toy.test": {"nDCG@10": 0.5 + plus}}, scores=scores, method=name)
    (tmp_path / "log.tsv").write_text("".join(f"q{n}\td1\t{100 - n}\t1\t1\n" for n in range(9)))
    notes: list[str] = []
    table = band_table(rows_in(tmp_path), tmp_path / "log.tsv", notes)
    assert [c.heading for c in table.columns] == ["head (1)", "torso (3)", "tail (6)"] and not notes
    assert [[round(c.value, 4) for c in line.cells] for line in table.lines] == [[0.0, 0.2, 0.65], [0.1, 0.3, 0.75]]
    (tmp_path / "log.tsv").write_text("other\td1\t5\t1\t1\n")
    with pytest.raises(UserError, match="has no query of the runs' collections"):
        band_table(rows_in(tmp_path), tmp_path / "log.tsv", notes)
    assert notes == [f"{tmp_path / 'log.tsv'} has no query of toy.test, which has no scores by band"]
