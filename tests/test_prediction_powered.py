"""Scores from few judgements by people and many by an LLM."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import t

from uar.annotation.annotators import Pointwise
from uar.collections import open_collection
from uar.errors import DataError, UserError
from uar.evaluate import evaluate
from uar.evaluation.estimates import Estimating, llm_grades, rank_agreement, values_of
from uar.evaluation.hybrid_test import hybrid
from uar.evaluation.judged_by_llm import JudgedByLLM, read_answer_values
from uar.evaluation.measures import means, per_query
from uar.evaluation.passage_estimates import estimated_share
from uar.evaluation.prediction_powered import estimated_mean
from uar.evaluation.run_estimates import estimate_runs
from uar.launch.entry import composed
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.storage.labelled_pairs import FileLabel
from uar.storage.runs import write_run

RUNS = 2_000  # simulations; 95 % of so many vary by 1 % around it, with two standard deviations


def simulated(noise: float, people: int, others: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(simulations, questions) values as nDCG has them, those by an LLM, which is biased, and the true mean."""
    generator = np.random.default_rng(7)
    values = generator.beta(2.5, 1.5, (RUNS, people + others))
    llm = 0.25 + 0.7 * values + noise * generator.standard_normal(values.shape)
    return values, np.clip(llm, 0, 1), 2.5 / 4


@pytest.mark.parametrize(("noise", "narrower"), [(0.1, 0.25), (0.5, 0.0), (5.0, -0.02)])
def test_intervals_hold_their_level_and_good_predictions_make_them_narrower(noise: float, narrower: float) -> None:
    values, llm, truth = simulated(noise, 30, 300)
    found = estimated_mean(values[:, :30], llm[:, :30], llm[:, 30:])
    assert 0.93 <= ((found.low <= truth) & (truth <= found.high)).mean() <= 0.97
    alone = found.people_high - found.people_low
    assert (found.high - found.low).mean() <= (1 - narrower) * alone.mean()
    assert abs(found.value.mean() - truth) < 0.005 and abs(llm.mean() - truth) > 0.002  # the LLM alone is wrong


def test_the_formula_by_hand() -> None:
    people, beside, elsewhere = np.array([0.0, 1.0, 1.0, 0.5]), np.array([0.2, 0.8, 0.9, 0.4]), np.array([0.6, 0.1, 0.7])
    found = estimated_mean(people, beside, elsewhere, level=0.9)
    covariance = np.cov(people, beside)[0, 1]
    weight = covariance / ((1 + 4 / 3) * np.concatenate([beside, elsewhere]).var(ddof=1))
    assert found.weight == pytest.approx(min(1, weight))
    assert found.value == pytest.approx(people.mean() + found.weight * (elsewhere.mean() - beside.mean()))
    left = people - found.weight * beside
    variance = ((left - left.mean()) ** 2).sum() / 2 / 4 + found.weight**2 * elsewhere.var(ddof=1) / 3
    assert found.high - found.value == pytest.approx(t.ppf(0.95, 2) * variance**0.5)
    assert found.people_high - found.people == pytest.approx(t.ppf(0.95, 3) * people.std(ddof=1) / 2)
    alone = estimated_mean(people, beside, elsewhere[:0])
    assert alone.weight == 0 and (alone.low, alone.high) == (alone.people_low, alone.people_high)
    useless = estimated_mean(people, np.ones(4), np.ones(3))
    assert useless.weight == 0 and useless.low == useless.people_low


def test_judgements_of_single_passages_hold_their_level_too() -> None:
    generator = np.random.default_rng(1)
    held, narrower = 0, []
    for _ in range(500):
        share = generator.beta(2, 2, (100, 1))
        truth = (generator.random((100, 10)) < share).astype(float)
        llm = np.where(generator.random(truth.shape) < 0.95, truth, 1 - truth)
        people = np.where(generator.random(truth.shape) < 0.1, truth, np.nan)
        found = estimated_share(people, llm, 0.95)
        held += found["low"] <= 0.5 <= found["high"]
        narrower.append((found["high"] - found["low"]) / (found["people_high"] - found["people_low"]))
    assert 0.92 <= held / 500 <= 0.98 and np.mean(narrower) < 0.75


def test_places_that_a_run_leaves_empty_hold_nothing_relevant() -> None:
    generator = np.random.default_rng(1)
    held, values = 0, []
    for _ in range(500):
        shown = np.arange(10) < generator.integers(1, 11, (100, 1))  # 5.5 of 10 places, half of them relevant
        truth = (generator.random((100, 10)) < 0.5).astype(float)
        llm = np.where(generator.random(truth.shape) < 0.75, truth, 1 - truth)
        people = np.where(shown & (generator.random(truth.shape) < 0.2), truth, np.nan)
        found = estimated_share(people, np.where(shown, llm, np.nan), 0.95)
        held += found["low"] <= 0.275 <= found["high"]
        values.append((found["value"], found["people"]))
    assert 0.92 <= held / 500 <= 0.98 and np.mean(values, axis=0) == pytest.approx([0.275, 0.275], abs=0.005)


def test_the_precision_of_a_short_run_is_estimated_over_all_places() -> None:
    ids = [f"q{n}" for n in range(40)]
    qrels = {q: {"a": 1, "b": 0} for q in ids}
    collection = replace(open_collection("mini:dev"), qrels=qrels, positive_grade=1)
    run = {q: [("a", 2.0), ("b", 1.0)] for q in ids}
    found = Estimating(unit="passage").of_run(collection, run, ["P@4"], ids, qrels)["P@4"]
    assert found["value"] == found["people"] == found["llm"] == means(per_query(collection, run, ["P@4"], ids))["P@4"] == 0.25
    assert found["people_passages"] == found["llm_passages"] == 80


def test_the_own_document_of_a_question_takes_no_place_of_its_precision() -> None:
    ids = [f"q{n}" for n in range(40)]
    qrels = {q: {"a": 1, "b": 0} for q in ids}
    collection = replace(open_collection("mini:dev"), qrels=qrels, positive_grade=1, drop_own=True)
    run = {q: [(q, 3.0), ("a", 2.0), ("b", 1.0)] for q in ids}
    found = Estimating(unit="passage").of_run(collection, run, ["P@2", "P(judged_only=True)@2"], ids, qrels)
    assert list(found) == ["P@2"] and found["P@2"]["people_passages"] == 80
    assert found["P@2"]["llm"] == means(per_query(collection, run, ["P@2"], ids))["P@2"] == 0.5


def test_runs_of_which_people_judged_unlike_shares_are_ordered_by_their_precision(tmp_path: Path) -> None:
    mini = open_collection("mini:test")
    ids = list(mini.queries)[:40]
    runs = {name: {q: [(f"{name}{at}", -at) for at in range(5)] for q in ids} for name in ("good", "bad")}
    useful = {"good0", "good1", "good2", "good3", "bad0", "bad1"}
    seen = {q: {f"good{n % 5}", *(d for d, _ in runs["bad"][q])} for n, q in enumerate(ids)}  # one of five, and all
    judged = replace(mini, qrels={q: {d: int(d in useful) for d in of} for q, of in seen.items()}, positive_grade=1)
    labels = {q: {d: FileLabel(int(d in useful)) for run in runs.values() for d, _ in run[q]} for q in ids}
    found = estimate_runs(tmp_path, judged, labels, runs, ["P@5"], Estimating(unit="passage", human_frac=0.9))
    assert found is not None and found["runs"]["good"]["P@5"]["people"] > 0.7 > found["runs"]["bad"]["P@5"]["people"]
    assert found["kendall_tau"] == {"llm": {"P@5": 1.0}, "estimate": {"P@5": 1.0}} and found["questions_by_people"] == ids


@pytest.mark.parametrize(("people", "wider"), [(5, 0.12), (10, 0.03)])
def test_few_people_beside_a_bad_llm_hold_the_level_at_a_cost(people: int, wider: float) -> None:
    values, llm, truth = simulated(5.0, people, 300)
    found = estimated_mean(values[:, :people], llm[:, :people], llm[:, people:])
    assert 0.925 <= ((found.low <= truth) & (truth <= found.high)).mean() <= 0.97
    assert (found.high - found.low).mean() <= (1 + wider) * (found.people_high - found.people_low).mean()


def test_intervals_of_shares_are_shares_and_those_of_other_values_are_not(caplog: pytest.LogCaptureFixture) -> None:
    people, llm = dict(zip("abcde", [0.9, 1.0, 1.0, 0.4, 1.0], strict=True)), dict.fromkeys("abcdefgh", 0.5) | {"a": 0.9}
    found = Estimating().estimates({"P@10": people}, {"P@10": llm})["P@10"]
    assert found["high"] == found["people_high"] == 1 and 0 < found["low"] < found["value"] < 1
    tenfold = [{q: 10 * v for q, v in of.items()} for of in (people, llm)]
    assert Estimating().estimates({"x": tenfold[0]}, {"x": tenfold[1]})["x"]["high"] > 10
    assert "P@10: 5 questions by people are few" in caplog.text
    shares = estimated_share(np.array([[1.0, np.nan], [1.0, 1.0], [0.0, 1.0]]), np.ones((3, 2)), 0.95)
    assert shares["high"] == 1 and shares["low"] >= 0


def test_systems_are_ordered_alike_or_not() -> None:
    assert rank_agreement([0.1, 0.2, 0.3], [1, 2, 3]) == 1 and rank_agreement([0.1, 0.2, 0.3], [3, 2, 1]) == -1
    assert rank_agreement([0.1], [0.2]) is None and rank_agreement([0.1, 0.2], [0.3, 0.3]) is None


def test_a_smaller_share_of_people_is_part_of_a_larger_one_and_wrong_options_are_told() -> None:
    ids = [f"q{n}" for n in range(50)]
    assert Estimating(human_frac=0.2).by_people(ids) == Estimating(human_frac=0.5).by_people(ids)[:10]
    for wrong, told in (
        ({"level": 1}, "level=1"),
        ({"human_frac": 0}, "human_frac=0"),
        ({"unit": "word"}, "question, passage"),
    ):
        with pytest.raises(UserError, match=told):
            Estimating(**wrong)
    with pytest.raises(UserError, match="2 questions have judgements by people and by the LLM; at least 5"):
        Estimating().estimates({"AP": {"a": 1, "b": 0}}, {"AP": {"a": 1, "b": 0, "c": 1}})


def test_one_value_of_all_that_people_judged_makes_no_interval(caplog: pytest.LogCaptureFixture) -> None:
    found = Estimating().estimates({"RR": dict.fromkeys("abcde", 1.0)}, {"RR": dict.fromkeys("abcdefgh", 0.5)})
    assert found["RR"]["value"] == 1 and found["RR"]["low"] is found["RR"]["people_high"] is None
    assert "no interval" in caplog.text


def test_grades_are_taken_where_people_grade_and_labels_elsewhere() -> None:
    mini = open_collection("mini:dev")
    query_id = next(iter(mini.queries))
    labels = {query_id: {"a": FileLabel(3, 1), "b": FileLabel(1, 0), "c": FileLabel(2)}, "unknown": {"a": FileLabel(1)}}
    plain = replace(mini, qrels={query_id: {"a": 2, "b": 0}}, positive_grade=2)
    assert llm_grades(plain, labels) == {query_id: {"a": 2, "b": 0, "c": 2}}
    assert llm_grades(plain, {query_id: {"a": FileLabel(1), "b": FileLabel(0)}}) == {query_id: {"a": 2, "b": 0}}
    graded = replace(mini, qrels={query_id: {"a": 3, "b": 1}}, positive_grade=2)
    assert llm_grades(graded, labels) == {query_id: {"a": 3, "b": 1, "c": 2}}


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of mini:test and labels by an LLM that is wrong now and then, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    mini = open_collection("mini:test")
    run = BM25Ranker().rank(mini, list(mini.queries), 20)
    write_run(tmp_path / "good.trec", run, "good")
    write_run(tmp_path / "bad.trec", {q: [(d, -s) for d, s in hits[::-1]] for q, hits in run.items()}, "bad")
    lines = [f"{q}\t{d}\t{int((d in mini.positives(q)) != (len(q + d) % 11 == 0))}\n" for q in mini.queries for d, _ in run[q]]
    (tmp_path / "llm.tsv").write_text("".join(lines))
    return tmp_path


def test_the_hybrid_test_estimates_each_run(judged: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = ["collection=mini:test", "runs=[good.trec,bad.trec]", "annotator=import", "annotator.path=llm.tsv", "logger=none"]
    with caplog.at_level(logging.INFO):
        hybrid(composed("hybrid", *given, "measures=[nDCG@10,RR@10]", "estimate.human_frac=0.4"), Path("run"))
    found = json.loads((judged / "run" / "estimates.json").read_text())
    mini = open_collection("mini:test")
    assert len(found["questions_by_people"]) == round(0.4 * len(mini.queries))
    assert list(found["runs"]) == ["good", "bad"] and found["kendall_tau"]["llm"]["nDCG@10"] == 1
    of_run = found["runs"]["good"]["nDCG@10"]
    assert of_run["low"] < of_run["value"] < of_run["high"] and of_run["llm_questions"] == len(mini.queries)
    assert "good, as if people had judged all" in caplog.text and "Kendall's tau of the order of 2 runs" in caplog.text
    with caplog.at_level(logging.INFO):
        hybrid(composed("hybrid", *given, "measures=[P@5]", "estimate.human_frac=0.4", "estimate.unit=passage"), Path("p"))
        hybrid(composed("hybrid", *given, "measures=[P@5]", "estimate.human_frac=0.01"), Path("few"))
    assert json.loads((judged / "p" / "estimates.json").read_text())["runs"]["good"]["P@5"]["people_passages"] >= 30
    assert "No estimates of bad: P@5: people judged" in caplog.text
    assert "No estimates: people judged 1 of" in caplog.text and not (judged / "few" / "estimates.json").exists()


def test_scores_alone_are_no_labels_to_estimate_from(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"query_id": ["q1", "q1"], "doc_id": ["a", "b"], "grade": [1, None], "score": [0.9, 0.2]}), path)
    with pytest.raises(DataError, match="scores.parquet: scores or ranks alone; labels or grades are needed"):
        JudgedByLLM(labels=str(path))


def test_an_evaluation_estimates_scores_and_answers(judged: Path) -> None:
    rows = [f"q{n}\tcorrect\t{n % 2 if n < 20 else ''}\t{n % 2 if n % 5 else 1}\n" for n in range(60)]
    (judged / "answers.tsv").write_text("query_id\tmeasure\tpeople\tllm\n" + "".join(rows))
    given = ["run=good.trec", "collections=[mini:test]", "retrieval_depth=20", "measures=[nDCG@10]", "logger=none"]
    options = ["estimate.labels=llm.tsv", "estimate.answers=answers.tsv", "estimate.human_frac=0.5"]
    (judged / "run").mkdir()
    (judged / "run" / "estimates.json").write_text('{"old.test": {}}')
    evaluate(composed("evaluate", *given, *options), Path("run"))
    found = json.loads((judged / "run" / "estimates.json").read_text())
    assert list(found) == ["mini.test", "answers"]  # and nothing of an earlier evaluation
    mini = open_collection("mini:test")
    both = values_of(mini, {}, ["nDCG@10"], found["mini.test"]["questions_by_people"], {})[0]
    assert found["mini.test"]["measures"]["nDCG@10"]["people_questions"] == len(both["nDCG@10"])
    correct = found["answers"]["measures"]["correct"]
    assert correct["people_questions"] == 10 and correct["llm_questions"] == 60 and correct["low"] < correct["high"]
    scored = json.loads((judged / "run" / "metrics.json").read_text())["retrieval"]["mini.test"]
    whole = per_query(mini, BM25Ranker().rank(mini, list(mini.queries), 20), ["nDCG@10"], list(mini.queries))
    assert scored == pytest.approx(means(whole))  # all that people judged, whatever the estimates use


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("query_id\tmeasure\tllm\n", "answers.tsv:1: the header is"),
        ("query_id\tmeasure\tpeople\tllm\nq1\tEM\t1\n", "answers.tsv:2: .* has no four fields"),
        ("query_id\tmeasure\tpeople\tllm\nq1\tEM\t\tyes\n", "answers.tsv:2"),
        ("query_id\tmeasure\tpeople\tllm\n\nq1\tEM\tnan\t1\n", "answers.tsv:3"),
        ("query_id\tmeasure\tpeople\tllm\n", "the header alone"),
        (
            "query_id\tmeasure\tpeople\tllm\nq1\tEM\t1\t1\nq1\tEM\t1\t1\n",
            "answers.tsv:3: EM of question 'q1' stands there twice",
        ),
        ("query_id\tmeasure\tpeople\tllm\nq1\tEM\t\t1\n", "people say nothing of EM"),
    ],
)
def test_a_faulty_table_of_answers_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "answers.tsv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_answer_values(tmp_path / "answers.tsv")


def test_a_table_of_answers_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    (tmp_path / "answers.tsv").write_bytes(b'\xef\xbb\xbfquery_id\tmeasure\tpeople\tllm\r\n"q\tEM\t1\t0.5\r\nq2\tEM\t\t1\r\n')
    assert read_answer_values(tmp_path / "answers.tsv") == ({"EM": {'"q': 1.0}}, {"EM": {'"q': 0.5, "q2": 1.0}})


def test_what_cannot_be_estimated_is_told(judged: Path) -> None:
    with pytest.raises(UserError, match="estimate.answers=gone.tsv: no such file"):
        JudgedByLLM(answers="gone.tsv")
    mini = open_collection("mini:test")
    nobody = replace(mini, qrels={})
    with pytest.raises(UserError, match="people judged none of its 56 questions"):
        JudgedByLLM(labels="llm.tsv").estimate(Path("run"), nobody, {}, ["AP"])
    with pytest.raises(UserError, match="estimate.unit=passage: measures=AP has no precision; add P@10"):
        JudgedByLLM(labels="llm.tsv", unit="passage").estimate(Path("run"), mini, {}, ["AP"])
    with pytest.raises(UserError, match=r"P@5: people judged 0 of the passages that the run shows; at least 30"):
        JudgedByLLM(labels="llm.tsv", unit="passage").estimate(Path("run"), mini, {}, ["P@5"])


def test_the_assessor_preset_grades_from_0_to_3(composes: Callable[..., Pointwise]) -> None:
    annotator = composes("annotator=umbrela")
    assert annotator.grades == (0, 3) and annotator.positive_grade == 2 and annotator.template == "umbrela"
    shown = annotator.prompt.render(query="Q?", passage="P.", scale=annotator._scale)[-1][1]
    assert "Query: Q?" in shown and "3 = The passage is devoted to the query" in shown


@pytest.fixture
def composes() -> Callable[..., Pointwise]:
    from hydra.utils import instantiate

    return lambda *overrides: instantiate(composed("annotate", *overrides).annotator)
