"""Annotators that judge one passage a call: grades with calibrated probabilities, likelihoods, answers against gold ones."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted import BEES, POOL, Scripted, kept, many, run

from uar.annotation.annotators import Judgement, Likelihood, Pointwise, QAMetric, RelSel
from uar.annotation.quality.calibration import expected_calibration_error
from uar.annotation.scale import load_scale
from uar.collections import Collection
from uar.collections.collection import Query
from uar.errors import DataError, UserError
from uar.llm.call import Question
from uar.llm.record import Choose, Generate, Outcome, Reply, Request, Score

GRADES = {"d1": (0.1, 0.2, 0.3, 0.4), "d2": (0.3, 0.4, 0.2, 0.1), "d3": (0.97, 0.01, 0.01, 0.01), "d4": (0.0, 0.45, 0.55, 0.0)}
GRADE = Pointwise(template="pointwise")


def by_passage(values: dict[str, Reply | str]) -> Callable[[Request], Reply | str]:
    """A reply by the passage that is shown."""
    texts = {POOL[d]: value for d, value in values.items()}
    return lambda r: next(v for text, v in texts.items() if text in str(r))


def chosen(probabilities: tuple[float, ...]) -> Reply:
    logs = [math.log(p) - 1.5 if p else -math.inf for p in probabilities]  # what is left goes to other tokens
    return Reply.of_choices(dict(zip("0123456789", logs, strict=False)))


def graded() -> Scripted:
    return Scripted(by_passage({d: chosen(p) for d, p in GRADES.items()}))


def test_log_likelihoods_of_grades_become_grade_probability_and_label(tmp_path: Path) -> None:
    engine = graded()
    judged, _ = run(tmp_path, GRADE, engine)
    found = judged["q1"]
    assert [(j.doc_id, j.label, j.grade, j.rank) for j in found] == [
        ("d1", 1, 3, 1),
        ("d4", 1, 2, 2),
        ("d2", 0, 1, 3),
        ("d3", 0, 0, 4),
    ]
    assert [j.score for j in found] == pytest.approx([0.7, 0.55, 0.3, 0.02])
    assert [j.uncertainty for j in found] == pytest.approx([0.881291, 0.992774, 0.881291, 0.141441], abs=1e-6)
    assert found[0].logprobs == pytest.approx([math.log(p) - 1.5 for p in GRADES["d1"]], abs=1e-6)
    assert all(isinstance(r, Choose) and (r.choices, r.reasoning) == (("0", "1", "2", "3"), None) for r in engine.asked)
    assert all("2: The passage holds a part of the answer" in r.messages[-1][1] for r in engine.asked)
    assert sorted(r.doc_ids for r in kept(tmp_path, "pointwise")) == [("d1",), ("d2",), ("d3",), ("d4",)]


@pytest.mark.parametrize(
    ("options", "scores", "positives"),
    [
        ({"threshold": 0.69}, [0.7, 0.55, 0.3, 0.02], ["d1"]),
        ({"threshold": 0.71}, [0.7, 0.55, 0.3, 0.02], []),
        ({"threshold": 0}, [0.7, 0.55, 0.3, 0.02], ["d1", "d4", "d2", "d3"]),
        ({"positive_grade": 1, "threshold": 0.75}, [1.0, 0.9, 0.7, 0.03], ["d4", "d1"]),
        ({"positive_grade": 3, "threshold": 0.39}, [0.4, 0.1, 0.01, 0.0], ["d1"]),
    ],
)
def test_another_threshold_or_positive_grade_asks_nothing(
    tmp_path: Path, options: dict, scores: list[float], positives: list[str]
) -> None:
    run(tmp_path, GRADE, graded())
    engine = graded()
    judged, _ = run(tmp_path, Pointwise(template="pointwise", **options), engine)
    assert engine.asked == []
    assert [j.score for j in judged["q1"]] == pytest.approx(scores)
    assert [j.doc_id for j in judged["q1"] if j.label] == positives


def test_equal_probabilities_are_ranked_by_passage_id_and_get_the_lowest_grade(tmp_path: Path) -> None:
    judged, _ = run(tmp_path, GRADE, Scripted(lambda r: chosen((0.25, 0.25, 0.25, 0.25))))
    assert [(j.doc_id, j.grade) for j in judged["q1"]] == [("d1", 0), ("d2", 0), ("d3", 0), ("d4", 0)]


@pytest.mark.parametrize("reply", [Reply.of_choices(dict.fromkeys("0123", v)) for v in (math.nan, -math.inf, math.inf)])
def test_log_likelihoods_that_say_nothing_are_a_failure(tmp_path: Path, reply: Reply) -> None:
    bad = by_passage({d: reply if d == "d2" else chosen(p) for d, p in GRADES.items()})
    judged, chains = run(tmp_path, GRADE, Scripted(bad))
    assert [(j.doc_id, j.label, j.rank) for j in judged["q1"]] == [("d1", 1, 1), ("d4", 1, 2), ("d3", 0, 3)]
    assert [(f.doc_ids, f.outcome) for f in chains.progress.failures] == [(("d2",), Outcome.UNPARSABLE)]


def test_grades_that_the_model_hardly_thinks_of_are_a_failure(tmp_path: Path) -> None:
    for nth, (logs, mass, outcome) in enumerate([
        ((0.02, 0.03, 0.04, 0.02), None, Outcome.OK),  # 11 % in all
        ((0.02, 0.03, 0.03, 0.01), None, Outcome.UNPARSABLE),
        ((0.2, 0.2, 0.2, 0.2), 0.0, Outcome.UNPARSABLE),  # bounds of a server that lists none of them
    ]):  # fmt: skip
        reply = Reply.of_choices(dict(zip("0123", map(math.log, logs), strict=True)), mass)
        judged, chains = run(tmp_path / str(nth), GRADE, Scripted(lambda r, reply=reply: reply), max_failure_rate=1.0)
        assert {r.outcome for r in kept(tmp_path / str(nth), "pointwise")} == {outcome}
        assert bool(judged) == (outcome == Outcome.OK)


def test_records_that_say_no_mass_are_read_as_they_were(tmp_path: Path) -> None:
    old = Reply('{"0": -9.0, "1": -9.0, "2": -8.0, "3": -9.0}')
    judged, _ = run(tmp_path, GRADE, Scripted(lambda r: old))
    assert {j.grade for j in judged["q1"]} == {2}


def test_a_model_that_reasons_says_the_grade_after_its_thoughts(tmp_path: Path) -> None:
    texts = {"d1": "<think>2 or 3?</think>Grade: 3", "d2": "0 or 1, no: 1</think>1", "d3": "0", "d4": "<think>x</think> 2."}
    engine = Scripted(by_passage(texts))
    judged, _ = run(tmp_path, Pointwise(template="pointwise", reasoning=True, reasoning_tokens=99), engine)
    assert [(j.doc_id, j.label, j.grade, j.score) for j in judged["q1"]] == [
        ("d1", 1, 3, None),
        ("d4", 1, 2, None),
        ("d2", 0, 1, None),
        ("d3", 0, 0, None),
    ]
    assert all(isinstance(r, Generate) and (r.reasoning, r.reasoning_tokens) == (True, 99) for r in engine.asked)
    assert {r.output for r in kept(tmp_path, "pointwise")} == set(texts.values())


def test_a_model_that_is_told_not_to_reason_is_asked_for_probabilities(tmp_path: Path) -> None:
    engine = graded()
    run(tmp_path, Pointwise(template="pointwise", reasoning=False), engine)
    assert all(isinstance(r, Choose) and r.reasoning is False for r in engine.asked)


OWN = "grades:\n  1: It is a bit of help.\n  0: It is none.\n  2: It is all.\n"


def test_an_own_scale_gives_the_grades_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    engine = Scripted(lambda r: chosen((0.2, 0.2, 0.6)))
    annotator = Pointwise(template="pointwise", scale=str(path), positive_grade=1, threshold=0.79)
    judged, _ = run(tmp_path / "store", annotator, engine)
    assert annotator.grades == (0, 2)
    assert {r.choices for r in engine.asked} == {("0", "1", "2")}
    assert "0: It is none.\n1: It is a bit of help.\n2: It is all.\n" in engine.asked[0].messages[-1][1]
    assert {(j.label, j.grade, round(j.score, 6)) for j in judged["q1"]} == {(1, 2, 0.8)}
    again = graded()
    run(tmp_path / "store", GRADE, again)
    assert len(again.asked) == 4  # another scale is another question


def test_a_scale_that_was_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    before = Pointwise(template="pointwise", scale=str(path))
    path.write_text(OWN + "  3: more\n")
    assert (before.grades, Pointwise(template="pointwise", scale=str(path)).grades) == ((0, 2), (0, 3))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("grades: {0: none, 1: all", "broken YAML"),
        ("- none\n- all\n", "at least two of {number: meaning}"),
        ("levels: {0: none, 1: all}\n", "at least two of {number: meaning}"),
        ("grades: {0: none}\n", "at least two of {number: meaning}"),
        ("grades: [none, all]\n", "at least two of {number: meaning}"),
        ("grades: {0: none, 1: 7}\n", "at least two of {number: meaning}"),
        ("grades: {0: none, 2: all}\n", "grades [0, 2]; they must be 0, 1, ..."),
        ("grades: {1: some, 2: all}\n", "grades [1, 2]; they must be 0, 1, ..."),
        ("grades: {low: none, high: all}\n", "grades ['low', 'high']; they must be 0, 1, ..."),
        ("grades: {0.0: none, 1.0: all}\n", "grades [0.0, 1.0]; they must be 0, 1, ..."),
        ("grades: {no: none, yes: all}\n", "grades [False, True]; they must be 0, 1, ..."),
        (f"grades: {dict.fromkeys(range(11), 'g')}\n", "at most ten"),
        ("grades: {0: für, 1: all}\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_faulty_scale_is_refused_with_its_file_name(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = tmp_path / "scale.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        Pointwise(template="pointwise", scale=str(path))
    assert str(error.value).startswith(f"{path}: ") and told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scale_of_ten_grades_is_allowed_and_an_unknown_one_is_told_the_known(tmp_path: Path) -> None:
    path = tmp_path / "ten.yaml"
    path.write_text(f"grades: {dict.fromkeys(range(10), 'a grade')}\n")
    assert [grade for grade, _ in load_scale(str(path))] == list(range(10))
    with pytest.raises(DataError, match="absent: no such scale.*utility"):
        Pointwise(template="pointwise", scale="absent")


@pytest.mark.parametrize(
    ("option", "value"), [("positive_grade", 0), ("positive_grade", 4), ("threshold", -0.1), ("threshold", 1.1)]
)
def test_an_impossible_option_is_named(option: str, value: float) -> None:
    with pytest.raises(UserError, match=f"annotator.{option}={value}"):
        Pointwise(template="pointwise", **{option: value})


def people(labels: dict[str, dict[str, int]]) -> Collection:
    queries = {q: Query(q, q) for q in labels}
    return Collection("toy:train", "toy.train", None, queries, {q: grades for q, grades in labels.items() if grades})


def overconfident(queries: int, sharpness: float = 3.0) -> tuple[Collection, dict[str, list[Judgement]]]:
    """Judgements whose log-odds are `sharpness` times the true ones, and labels that people drew from the true ones."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 1.5, (queries, 10))
    labels = rng.random(odds.shape) < 1 / (1 + np.exp(-odds))
    judged = {
        f"q{q}": GRADE.judge({f"d{d}": (-math.inf, 0.0, sharpness * z, -math.inf) for d, z in enumerate(row)}, 1.0)
        for q, row in enumerate(odds)
    }
    return people({f"q{q}": {f"d{d}": int(y) for d, y in enumerate(row)} for q, row in enumerate(labels)}), judged


def ece(collection: Collection, judged: dict[str, list[Judgement]], query_ids: set[str]) -> float:
    pairs = [(j.score, collection.positive(q, j.doc_id)) for q in sorted(query_ids) for j in judged[q]]
    return expected_calibration_error(*np.array(pairs, float).T)


def test_a_few_judged_queries_calibrate_the_probabilities_of_the_others() -> None:
    collection, judged = overconfident(80)
    again, told = replace(GRADE, calibration_queries=30).finish(collection, judged, seed=0)
    assert set(told) == {"queries", "queries_fitted_on", "temperature", "pairs", "before", "after"}
    assert (len(told["queries"]), told["queries_fitted_on"], told["pairs"]) == (30, 30, 500)
    assert 2 < told["temperature"] < 4
    for side in ("before", "after"):
        assert set(told[side]) == {"brier", "expected_calibration_error", "reliability"}
    assert told["after"]["expected_calibration_error"] < 0.6 * told["before"]["expected_calibration_error"]
    assert told["after"]["brier"] < told["before"]["brier"]
    assert ece(collection, again, set(judged)) < 0.6 * ece(collection, judged, set(judged))
    for query_id in judged:  # softened, in the same order
        assert [j.doc_id for j in again[query_id]] == [j.doc_id for j in judged[query_id]]
        assert [j.logprobs for j in again[query_id]] == [j.logprobs for j in judged[query_id]]
        assert all(abs(a.score - 0.5) <= abs(b.score - 0.5) for a, b in zip(again[query_id], judged[query_id], strict=True))


def test_the_queries_that_calibrate_depend_on_the_seed_alone() -> None:
    collection, judged = overconfident(12)
    annotator = replace(GRADE, calibration_queries=3)
    backwards = dict(reversed(judged.items()))
    temperatures = [annotator.finish(collection, js, seed)[1]["temperature"] for js, seed in
                    ((judged, 0), (backwards, 0), (judged, 1))]  # fmt: skip
    assert temperatures[0] == pytest.approx(temperatures[1]) != pytest.approx(temperatures[2])


def test_shards_are_calibrated_alike_and_one_without_the_queries_is_not(caplog: pytest.LogCaptureFixture) -> None:
    collection, judged = overconfident(20)
    annotator = replace(GRADE, calibration_queries=6)
    drawn = annotator.asked_besides(collection, 0)
    assert len(drawn) == 6 and drawn != annotator.asked_besides(collection, 1)
    shards = [{q: js for nth, (q, js) in enumerate(judged.items()) if nth % 2 == n or q in drawn} for n in (0, 1)]
    temperatures = {annotator.finish(collection, shard, 0)[1]["temperature"] for shard in (*shards, judged)}
    assert len(temperatures) == 1 and temperatures != {1.0}
    few = {q: js for q, js in judged.items() if q not in drawn[2:]}
    assert annotator.finish(collection, few, 0) == (few, {"queries": [], "queries_fitted_on": 0, "temperature": 1.0})
    assert "only 2 of the 6 queries drawn are judged" in caplog.text
    more = {q: js for q, js in judged.items() if q not in drawn[:1]}  # one whose calls failed
    assert annotator.finish(collection, more, 0)[1]["queries_fitted_on"] == 5


def test_where_all_judged_queries_calibrate_there_is_nothing_to_measure() -> None:
    collection, judged = overconfident(20)
    some = people({q: grades if int(q[1:]) < 5 else {} for q, grades in collection.qrels.items()})
    again, told = GRADE.finish(some, judged, seed=0)
    assert set(told) == {"queries", "queries_fitted_on", "temperature"} and told["queries_fitted_on"] == 5
    assert set(again) == set(judged) and again["q19"] != judged["q19"]


def test_questions_that_an_llm_wrote_neither_calibrate_nor_measure() -> None:
    collection, judged = overconfident(20)
    annotator = replace(GRADE, calibration_queries=6)
    expected = annotator.finish(collection, judged, 0)[1]
    written = {f"w{n}": judged["q0"] for n in range(20)}
    queries = collection.queries | {q: Query(q, q, origin="generated") for q in written}
    qrels = collection.qrels | {q: {j.doc_id: int(j.rank == 10) for j in judged["q0"]} for q in written}
    both = replace(collection, queries=queries, qrels=qrels)
    assert annotator.asked_besides(both, 0) == expected["queries"]
    assert annotator.finish(both, judged | written, 0)[1] == expected
    assert annotator.finish(replace(collection, origin="generated"), judged, 0) == (judged, None)


def test_without_judgements_of_people_or_queries_to_fit_nothing_is_calibrated() -> None:
    collection, judged = overconfident(3)
    assert GRADE.finish(people({}), judged, seed=0) == (judged, None)
    again, told = replace(GRADE, calibration_queries=0).finish(collection, judged, seed=0)
    assert again == judged and (told["temperature"], told["queries"], told["pairs"]) == (1.0, [], 30)
    assert told["after"]["expected_calibration_error"] == ece(collection, judged, set(judged))
    assert replace(GRADE, reasoning=True).finish(collection, judged, seed=0) == (judged, None)
    assert RelSel(template="relsel").asked_besides(collection, seed=0) == []


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class_leave_the_probabilities_as_they_are(label: int) -> None:
    _, judged = overconfident(4)
    collection = people({q: {j.doc_id: label for j in judgements} for q, judgements in judged.items()})
    again, told = GRADE.finish(collection, judged, seed=0)
    assert told["temperature"] == 1.0 and again == judged


def test_all_scores_that_reach_a_threshold_are_positive(tmp_path: Path) -> None:
    values = {"d1": -0.5, "d2": -1.0, "d3": -1.01, "d4": -3.0}
    answer = by_passage({d: Reply.of_score(2 * v, 2) for d, v in values.items()})
    for threshold, positives in ((-1.0, ["d1", "d2"]), (-5, list(POOL)), (-0.4, [])):
        annotator = Likelihood(template="likelihood_question", rule="at_least", threshold=threshold)
        engine = Scripted(answer)
        judged, _ = run(tmp_path, annotator, engine)
        assert [j.doc_id for j in judged["q1"] if j.label] == positives
        assert len(engine.asked) == (4 if threshold == -1.0 else 0)
    assert all(isinstance(r, Score) for r in engine.asked)


ANSWERS = {"d1": "Honey.", "d2": "hives", "d3": "the honey bee", "d4": "unknown"}


def test_an_answer_from_each_passage_is_measured_against_the_gold_one(tmp_path: Path) -> None:
    cases = [
        ({}, [("d1", 1.0, 1), ("d3", 2 / 3, 1), ("d2", 0.0, 0), ("d4", 0.0, 0)]),
        ({"threshold": 0.67}, [("d1", 1.0, 1), ("d3", 2 / 3, 0), ("d2", 0.0, 0), ("d4", 0.0, 0)]),
        ({"metric": "em"}, [("d1", 1.0, 1), ("d2", 0.0, 0), ("d3", 0.0, 0), ("d4", 0.0, 0)]),
        ({"metric": "rouge_l"}, [("d1", 1.0, 1), ("d3", 0.5, 1), ("d2", 0.0, 0), ("d4", 0.0, 0)]),
        ({"rule": "top_percent", "threshold": 75}, [("d1", 1.0, 1), ("d3", 2 / 3, 1), ("d2", 0.0, 1), ("d4", 0.0, 1)]),
        ({"rule": "margin", "threshold": 0.3}, [("d1", 1.0, 1), ("d3", 2 / 3, 0), ("d2", 0.0, 0), ("d4", 0.0, 0)]),
    ]
    for nth, (options, wanted) in enumerate(cases):
        engine = Scripted(by_passage(ANSWERS))
        judged, _ = run(tmp_path, QAMetric(template="qa_metric", **options), engine)
        assert [(j.doc_id, j.label) for j in judged["q1"]] == [(d, label) for d, _, label in wanted]
        assert [j.score for j in judged["q1"]] == pytest.approx([score for _, score, _ in wanted])
        assert len(engine.asked) == (0 if nth else 4)
    assert {r.stage for r in kept(tmp_path, "passage_answer")} == {"passage_answer"}


def test_the_best_of_several_gold_answers_counts(tmp_path: Path) -> None:
    question = replace(BEES, answers=("wax", "a hive", "honey"))
    judged, _ = run(tmp_path, QAMetric(template="qa_metric", metric="em"), Scripted(by_passage(ANSWERS)), [question])
    assert [j.doc_id for j in judged["q1"] if j.label] == ["d1"]


def test_questions_without_a_gold_answer_are_left_out_and_not_asked(tmp_path: Path) -> None:
    for rule in ("at_least", "top_percent", "margin"):
        engine = Scripted(by_passage(ANSWERS))
        judged, _ = run(tmp_path / rule, QAMetric(template="qa_metric", rule=rule), engine, [*many(2), BEES])
        assert list(judged) == ["q1"]
        assert len(engine.asked) == 4


def test_a_short_answer_that_is_cut_is_measured_and_an_empty_one_a_failure(tmp_path: Path) -> None:
    cut = ANSWERS | {"d1": Reply("honey and", Outcome.TRUNCATED)}
    judged, chains = run(tmp_path / "cut", QAMetric(template="qa_metric"), Scripted(by_passage(cut)))
    assert judged["q1"][0].score == pytest.approx(2 / 3) and not chains.progress.failures
    for nth, reply in enumerate(("", Reply("<think>It is honey", Outcome.TRUNCATED), Reply("503", Outcome.ERROR))):
        judged, chains = run(
            tmp_path / str(nth), QAMetric(template="qa_metric"), Scripted(by_passage(ANSWERS | {"d2": reply}))
        )
        assert [j.doc_id for j in judged["q1"]] == ["d1", "d3", "d4"] and len(chains.progress.failures) == 1
    assert run(tmp_path / "none", QAMetric(template="qa_metric"), Scripted(lambda r: ""))[0] == {}


@pytest.mark.parametrize(("option", "value"), [("metric", "bleu"), ("rule", "best"), ("threshold", 101)])
def test_an_impossible_option_of_a_metric_is_named(option: str, value: object) -> None:
    with pytest.raises(UserError, match=f"annotator.{option}={value!r}"):
        QAMetric(template="qa_metric", **({"rule": "top_percent"} | {option: value}))


def test_passages_of_a_pool_that_grows_are_asked_alone(tmp_path: Path) -> None:
    small = Question("q1", BEES.text, dict(list(POOL.items())[:2]), BEES.answers)
    for annotator, answers in ((GRADE, {d: chosen(p) for d, p in GRADES.items()}), (QAMetric(template="qa_metric"), ANSWERS)):
        run(tmp_path, annotator, Scripted(by_passage(answers)), [small])
        engine = Scripted(by_passage(answers))
        judged, _ = run(tmp_path, annotator, engine)
        assert (len(engine.asked), len(judged["q1"])) == (2, 4)
