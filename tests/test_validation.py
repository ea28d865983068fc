"""Annotators against people and each other: who agrees, which differ, which may replace which."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from scipy.stats import ttest_1samp

from uar.annotation.judgement import Judgement
from uar.annotation.outputs import write_labels
from uar.errors import DataError, UserError
from uar.evaluation.validation.question_values import measured
from uar.evaluation.validation.raters import UNKNOWN, Rated, Rater, read_raters
from uar.evaluation.validation.repeats import consistency, errors_by_doubt
from uar.evaluation.validation.replacement import among_people, constant, pairwise, two_one_sided
from uar.evaluation.validation.validation_run import validate
from uar.launch.entry import composed
from uar.storage.label_files import write_label_file

Rows = Mapping[tuple[str, str], int]


def rater(name: str, *labels: int | None, doubt: list[float] | None = None) -> Rater:
    values = np.array([UNKNOWN if label is None else label for label in labels], np.int8)
    nothing = np.full(len(values), np.nan)
    return Rater(name, values, np.maximum(values, 0).astype(np.int32), nothing, nothing if doubt is None else np.array(doubt))


def rated(query: list[int], people: list[Rater], runs: list[Rater]) -> Rated:
    return Rated([f"q{n}" for n in range(max(query) + 1)], np.array(query), people, runs, people[0])


def file(path: Path, rows: Rows) -> Path:
    lines = "".join(f"{q}\t{d}\t{grade}\n" for (q, d), grade in rows.items())
    path.write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return path


@pytest.fixture
def truth() -> dict[tuple[str, str], int]:
    return {(f"q{n}", f"d{n}-{at}"): int(at == 0) for n in range(400) for at in range(5)}


@pytest.fixture
def wrong(truth: Rows) -> Callable[..., dict]:
    """The truth, with a share of the labels turned, at random by the seed."""

    def turned(share: float, seed: int) -> dict[tuple[str, str], int]:
        flips = np.random.default_rng(seed).random(len(truth)) < share
        return {pair: label ^ bool(flip) for (pair, label), flip in zip(truth.items(), flips, strict=True)}

    return turned


def run_of(folder: Path, rows: Rows, template: str, model: str, **more: object) -> None:
    """An annotate run's folder, with what of it is read."""
    judged: dict[str, list[Judgement]] = {}
    for (query_id, doc_id), label in rows.items():
        of_query = judged.setdefault(query_id, [])
        of_query.append(Judgement(doc_id, int(label), int(label), None, len(of_query) + 1))
    write_labels(folder, judged)
    annotator = {"_target_": "uar.annotation.annotators.Pointwise", "template": template, **more}
    OmegaConf.save({"annotator": annotator, "llm": {"model": model}, "candidates": {}}, folder / "config.yaml")


def test_a_true_difference_is_found_and_equal_annotators_are_called_equal(
    tmp_path: Path, truth: Rows, wrong: Callable[..., dict], caplog: pytest.LogCaptureFixture
) -> None:
    people = file(tmp_path / "people.tsv", truth)
    for name, share, seed in (("good", 0.1, 1), ("as_good", 0.1, 2), ("bad", 0.2, 3)):
        file(tmp_path / f"{name}.tsv", wrong(share, seed))
    runs = ",".join(str(tmp_path / f"{name}.tsv") for name in ("good", "as_good", "bad"))
    cfg = composed("validate", f"labels={people}", f"runs=[{runs}]")
    with caplog.at_level("INFO"):
        found = validate(cfg, tmp_path / "out")
    assert {(row["first"], row["second"]): row["verdict"] for row in found["differences"]["pairs"]} == {
        ("good", "as_good"): "equal", ("good", "bad"): "better", ("as_good", "bad"): "better",
    }  # fmt: skip
    assert found["differences"]["p any differs"] < 0.001
    assert "good and as_good may replace each other (within 0.05)" in caplog.text
    assert "good may replace bad, not the other way round" in caplog.text
    value, low, high = found["differences"]["measure"]["good"]
    assert low < 0.9 < high and value == pytest.approx(0.9, abs=0.02)
    assert json.loads((tmp_path / "out" / "validation.json").read_text()) == found
    few = {pair: label for pair, label in truth.items() if pair[0] in {"q1", "q2", "q3", "q4"}}
    file(people, few)
    pairs = validate(cfg, tmp_path / "few")["differences"]["pairs"]
    assert {row["verdict"] for row in pairs} == {"undecided"}  # too few questions to say either


def test_values_by_question_have_the_measure_as_their_mean() -> None:
    run, people = rater("run", 1, 0, 0, 1, 1, None, 1), rater("people", 1, 1, 0, 0, 0, 1, None)
    both = rated([0, 0, 0, 1, 1, 1, 2], [people], [run])
    for measure, by_hand in (("accuracy", 2 / 5), ("balanced_accuracy", (1 / 2 + 1 / 3) / 2)):
        one = measured(both, run, measure)
        values = one.values(one.known)
        assert np.nanmean(values) == pytest.approx(by_hand) and np.isnan(values[2])
    # 2 questions: r + 2 (x - r n) / N, with r = 2/5, N = 5: q0 has 2 right of 3, q1 none of 2
    assert measured(both, run, "accuracy").values(one.known)[:2] == pytest.approx([0.4 + 2 * 0.8 / 5, 0.4 - 2 * 0.8 / 5])
    lazy = rater("lazy", 0, 0, 0, 0, 0, 0, 0)
    assert np.nanmean((one := measured(both, lazy, "balanced_accuracy")).values(one.known)) == 0.5
    with pytest.raises(UserError, match="one label alone.*measure=accuracy, or unjudged=negative"):
        one.values(people.label == 1)


def test_equivalence_is_two_one_sided_tests() -> None:
    differences = np.array([0.01, -0.02, 0.03, 0.0, 0.02, -0.01] * 2)
    low = ttest_1samp(differences, -0.05, alternative="greater").pvalue
    high = ttest_1samp(differences, 0.05, alternative="less").pvalue
    assert two_one_sided(differences, 0.05) == pytest.approx(max(low, high))
    assert two_one_sided(np.zeros(12), 0.05) == pytest.approx(0.95**12) and two_one_sided(np.full(12, 0.1), 0.05) == 1
    assert two_one_sided(np.zeros(9), 0.05) is None


def test_p_values_are_corrected_over_the_pairs_of_runs() -> None:
    generator = np.random.default_rng(0)
    people = rater("people", *generator.integers(0, 2, 200).tolist())
    runs = [rater(n, *np.where(generator.random(200) < share, people.label, 1 - people.label).tolist())
            for n, share in (("a", 0.9), ("b", 0.8), ("c", 0.6))]  # fmt: skip
    both = rated(list(range(200)), [people], runs)
    rows = pairwise({r.name: measured(both, r, "accuracy") for r in runs}, 0.05, 0.05, 0)
    order = sorted(rows, key=lambda row: row["p differ"])
    assert order[0]["p differ (Holm)"] == pytest.approx(min(1, 3 * order[0]["p differ"]))
    assert order[1]["p differ (Holm)"] == pytest.approx(max(order[0]["p differ (Holm)"], 2 * order[1]["p differ"]))


def test_an_annotator_among_three_people() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, 300)

    def near(name: str, share: float) -> Rater:
        return rater(name, *np.where(generator.random(300) < share, truth, 1 - truth).tolist())

    people = [near(name, 0.85) for name in "ABC"]
    both = rated(list(range(300)), people, [good := near("good", 0.9), poor := near("poor", 0.55)])
    may, may_not = (among_people(both, run, 0.1, 0.05) for run in (good, poor))
    assert (may["winning_rate"], may["may_replace"]) == (1, True) and may_not["winning_rate"] == 0
    of_a, others = may["people"][0], [people[1].label, people[2].label]
    like = [sum((other == r.label).astype(int) for other in others) for r in (good, people[0])]
    assert of_a["advantage"] == pytest.approx((like[0] >= like[1]).mean()) and of_a["pairs"] == 300
    d = (like[1] >= like[0]).astype(float) - (like[0] >= like[1])
    assert of_a["p"] == pytest.approx(ttest_1samp(d, 0.1, alternative="less").pvalue)
    assert among_people(rated(list(range(300)), people[:1], [good]), good, 0.1, 0.05) is None
    assert not among_people(both, constant(both), 0.1, 0.05)["may_replace"]
    rare = [rater(name, *(int(n in (at, 299)) for n in range(300))) for at, name in enumerate("ABC")]
    both = rated(list(range(300)), rare, [])
    assert among_people(both, lazy := constant(both), 0.1, 0.05)["may_replace"] and not lazy.label.any()


@pytest.mark.parametrize(("questions", "may"), [(2, False), (35, False), (36, True)])
def test_few_questions_without_a_difference_let_nobody_replace_people(questions: int, may: bool) -> None:
    labels = [n % 2 for n in range(questions)]
    people, run = [rater(name, *labels) for name in "AB"], rater("run", *labels)
    found = among_people(rated(list(range(questions)), people, [run]), run, 0.1, 0.05)
    assert [row["p"] for row in found["people"]] == pytest.approx([0.9**questions] * 2)
    assert found["may_replace"] is may  # Holm's correction over two people: 2 · 0.9³⁶ is below 0.05


def test_a_run_that_is_always_nearer_or_never_needs_questions_too() -> None:
    people = [rater("A", 1, 1, 1), rater("B", 0, 0, 0), rater("C", 0, 0, 0)]
    near, far = rater("near", 0, 0, 0), rater("far", 1, 1, 1)
    both = rated([0, 1, 2], people, [near, far])
    assert among_people(both, near, 0.1, 0.05)["people"][0]["p"] == pytest.approx((0.9 / 2) ** 3)  # the mean is -1
    assert [row["p"] for row in among_people(both, far, 0.1, 0.05)["people"][1:]] == [0.9**3] * 2


def test_the_grade_of_several_people_is_their_middle_one_also_below_0(tmp_path: Path) -> None:
    given = {"A": (-2, -2, 0), "B": (-2, 3, 2), "C": (1, None, 3)}
    people = {
        name: file(tmp_path / f"{name}.tsv", {("q", f"d{at}"): g for at, g in enumerate(grades) if g is not None})
        for name, grades in given.items()
    }
    rated = read_raters(people, {"run": people["A"]}, 1, "ignore", {})
    assert rated.majority.grade.tolist() == [-2, 1, 2]  # the mean of two, halves upwards


def test_prompts_and_models_are_compared_where_each_was_tried_with_each(
    tmp_path: Path, truth: Rows, wrong: Callable[..., dict], caplog: pytest.LogCaptureFixture
) -> None:
    shares = {("plain", "small"): 0.3, ("refined", "small"): 0.2, ("plain", "large"): 0.2, ("refined", "large"): 0.1}
    for seed, ((template, model), share) in enumerate(shares.items()):
        run_of(tmp_path / "runs" / f"{template}-{model}", wrong(share, seed), template, model)
    people = [file(tmp_path / f"{name}.tsv", wrong(0.05, seed)) for name, seed in (("ann", 8), ("bob", 9))]
    given = [f"labels=[{people[0]},{people[1]}]", f"runs={tmp_path / 'runs'}"]
    with caplog.at_level("INFO"):
        found = validate(composed("validate", *given), tmp_path / "out")
    assert found["runs"]["plain-small"]["prompt"] == "Pointwise: plain" and found["runs"]["plain-small"]["model"] == "small"
    (prompts,), (models,) = (found[what]["pairs"] for what in ("prompts", "models"))
    assert prompts["first"] == "Pointwise: plain" and prompts["difference"] == pytest.approx(-0.1, abs=0.03)
    assert (prompts["verdict"], models["first"], models["verdict"]) == ("worse", "large", "better")
    assert [row["first"] for row in found["people"]["agreement"]] == ["ann"] and "People among each other" in caplog.text
    assert found["people"]["krippendorff_alpha"] == pytest.approx(0.7, abs=0.1)
    low, high = found["people"]["krippendorff_alpha_interval"]
    assert 0.5 < low < found["people"]["krippendorff_alpha"] < high < 0.9
    assert "plain-small may not replace people" in caplog.text
    (tmp_path / "runs" / "plain-large" / "labels.parquet").unlink()
    assert "prompts" not in validate(composed("validate", *given), tmp_path / "uncrossed")


def test_consistency_over_repeats_and_errors_by_doubt(tmp_path: Path, truth: Rows, wrong: Callable[..., dict]) -> None:
    for sample in range(3):
        run_of(tmp_path / "runs" / f"r{sample}", wrong(0.1, sample), "plain", "small", sample=sample)
    people = file(tmp_path / "people.tsv", truth)
    found = validate(composed("validate", f"labels={people}", f"runs={tmp_path / 'runs' / 'r*'}"), tmp_path / "out")
    (row,) = found["consistency"]
    every = [list(wrong(0.1, sample).values()) for sample in range(3)]
    votes, right = np.mean(every, axis=0), np.array(list(truth.values()))
    assert row["runs"] == ["r0", "r1", "r2"] and row["consistency"] == pytest.approx(np.maximum(votes, 1 - votes).mean())
    whole = np.isin(votes, (0, 1))
    assert row["accuracy where all agree"] == pytest.approx(((votes > 0.5) == right)[whole].mean())
    assert row["accuracy where all agree"] > 0.99 > 0.9 > row["accuracy elsewhere"]
    few = dict(list(wrong(0.1, 2).items())[:1_000])
    for name in ("again", "further"):  # of a sample that is there; the store answers all of it
        run_of(tmp_path / "runs" / f"r-{name}", few, "plain", "small", sample=2)
    again = [f"runs={tmp_path / 'runs' / pattern}" for pattern in ("r*", "r-*")]
    every, none = (validate(composed("validate", f"labels={people}", runs), tmp_path / "again") for runs in again)
    assert every["consistency"] == [row] and none["consistency"] == []
    doubts = [n / 100 for n in range(100)]
    run = rater("run", *[int(n >= 80) for n in range(100)], doubt=doubts)
    found = errors_by_doubt(rated(list(range(100)), [rater("people", *[0] * 100)], [run]), run)
    assert [tenth["errors"] for tenth in found["tenths"]] == [0.0] * 8 + [1.0] * 2
    assert found["tenths"][0] == {"doubt": pytest.approx(0.045), "errors": 0.0, "pairs": 10}
    assert found["spearman"] == pytest.approx(math.sqrt(3 * 0.2 * 0.8), abs=0.001)  # of ranks and a last fifth that is 1


def test_repeats_that_are_divided_evenly_have_no_label_that_is_right_or_wrong() -> None:
    repeats = [(1, 1, 0, 0, 1), (1, 1, 1, 1, 0), (1, 0, 0, 0, 0), (1, 0, 1, 0, 0)]  # 4, 2, 2, 1 and 1 of 4
    runs = [
        replace(rater(f"r{n}", *labels), config={"annotator": {"sample": n}, "llm": {}}) for n, labels in enumerate(repeats)
    ]
    (row,) = consistency(rated([0, 1, 2, 3, 4], [rater("people", 1, 0, 0, 0, 1)], runs))
    assert row["pairs"] == 5 and row["consistency"] == pytest.approx((1 + 0.5 + 0.5 + 0.75 + 0.75) / 5)
    assert row["accuracy where all agree"] == 1 and row["accuracy elsewhere"] == 0.5


def test_passages_that_people_do_not_name_may_count_as_negative(
    tmp_path: Path, truth: Rows, wrong: Callable[..., dict]
) -> None:
    people = file(tmp_path / "people.tsv", {pair: 1 for pair, label in truth.items() if label})
    given = [f"labels={people}", f"runs={file(tmp_path / 'run.tsv', wrong(0.1, 1))}"]
    with pytest.raises(UserError, match="balanced_accuracy is not defined; use measure=accuracy, or unjudged=negative"):
        validate(composed("validate", *given), tmp_path / "out")
    found = validate(composed("validate", *given, "unjudged=negative"), tmp_path / "out")
    assert found["runs"]["run"]["pairs"] == 2000
    assert found["runs"]["run"]["equal_labels"] == pytest.approx(0.9, abs=0.02)


def test_labels_that_saw_the_llm_and_lists_of_nothing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = file(tmp_path / "run.tsv", {("q1", "d1"): 1, ("q1", "d2"): 0})
    (tmp_path / "review").mkdir()
    columns = {"query_id": ["q1", "q1"], "doc_id": ["d1", "d2"], "label": [1, 0], "grade": [1, 0], "assisted": [True, False]}
    pq.write_table(pa.table(columns), tmp_path / "review" / "labels.parquet")
    validate(composed("validate", f"labels={tmp_path / 'review'}", f"runs={run}"), tmp_path / "out")
    assert "1 labels by people were made while an LLM's suggestion was seen" in caplog.text
    with pytest.raises(UserError, match="labels names nothing; give files"):
        validate(composed("validate", "labels=[]", f"runs={run}"), tmp_path / "out")


def test_the_folder_of_a_training_says_what_its_file_does(tmp_path: Path) -> None:
    people = file(tmp_path / "people.tsv", {("q1", "d1"): 1, ("q1", "d2"): 0, ("q2", "d1"): 1})
    columns = ("query_id", "doc_id", "label", "stage")
    rows = [("q1", "d1", 1, "llm"), ("q1", "d2", 0, "llm"), ("q2", "d1", 1, "human")]
    place = tmp_path / "train" / "labels.parquet"
    for path in (place.parent, place):
        write_label_file(place, columns, rows[:2])  # without grades
        (run,) = read_raters({"people": people}, {"run": path}, 1, "ignore", {}).runs
        assert run.grade[run.known].tolist() == [1, 0] and run.scale == (0, 1)
        write_label_file(place, columns, rows)
        with pytest.raises(DataError, match=r"labels of 2 stages \(llm, human\)"):
            read_raters({"people": people}, {"run": path}, 1, "ignore", {})


def test_the_grade_that_made_labels_of_grades_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    people = file(tmp_path / "people.tsv", {("q1", "d1"): 3, ("q1", "d2"): 1, ("q1", "d3"): 0})
    run = file(tmp_path / "run.tsv", {("q1", "d1"): 1, ("q1", "d2"): 0, ("q1", "d3"): 0})
    other = file(tmp_path / "other.tsv", {("q1", "d1"): 2, ("q1", "d2"): 1, ("q1", "d3"): 0})
    with caplog.at_level("INFO"):
        found = validate(
            composed("validate", f"labels={people}", f"runs=[{run},{other}]", "positive_grade=2"), tmp_path / "out"
        )
    assert found["positive_grade"] == 2 and [found["runs"][name]["recall"] for name in ("run", "other")] == [0.0, 1.0]
    told = "{}: it holds grades; 2 and above are positive (positive_grade)"
    assert [m for m in caplog.messages if "positive_grade" in m] == [told.format(path) for path in (people, run, other)]


@pytest.mark.parametrize(
    ("labels", "runs", "options", "said"),
    [
        ("absent", "run", [], "labels=.*absent.tsv: no file of labels"),
        ("people", "absent", [], "runs=.*absent.tsv: no file of labels and no folder with labels.parquet"),
        (
            "people",
            "foreign",
            [],
            "foreign: none of its questions, such as 'x1', is among the 1 that people",
        ),
        ("people", "apart", [], "apart: no passage of it has a label by people"),
        ("people,apart", "run", [], "people: no passage of it was judged by others too"),
        ("people", "run", ["margin=0"], "margin=0: a number above 0"),
        ("people", "run", ["resamples=0"], "resamples=0: a whole number from 1 on"),
        ("people", "run", ["measure=f1"], "measure=f1; allowed: balanced_accuracy, accuracy"),
        ("people", "run", ["unjudged=no"], "unjudged=no; allowed: ignore, negative"),
    ],
)
def test_labels_that_cannot_be_compared_are_one_line(
    tmp_path: Path, labels: str, runs: str, options: list[str], said: str
) -> None:
    file(tmp_path / "people.tsv", {("q1", "d1"): 1, ("q1", "d2"): 0})
    file(tmp_path / "run.tsv", {("q1", "d1"): 1, ("q1", "d2"): 0})
    file(tmp_path / "apart.tsv", {("q1", "d9"): 1})
    file(tmp_path / "foreign.tsv", {("x1", "d1"): 1})
    several = ",".join(str(tmp_path / f"{name}.tsv") for name in labels.split(","))
    with pytest.raises(UserError, match=said) as error:
        validate(composed("validate", f"labels=[{several}]", f"runs={tmp_path / f'{runs}.tsv'}", *options), tmp_path / "out")
    assert "\n" not in str(error.value)
