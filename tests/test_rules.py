"""From scores to labels: the rules, copies of a passage, what a passage adds, and the best of several answers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import BEES, POOL, Scripted, kept, nat_by_passage, replies, run

from uar.annotation.annotators import Likelihood, QAMetric, UtilSel
from uar.annotation.annotators.scored import Rule, same_thresholds
from uar.errors import UserError
from uar.llm.call import Question
from uar.llm.record import Outcome, Reply, Request, Score

RANKS = Likelihood(template="likelihood_question", rule="margin", threshold=0.0)

SCORES = {"a": -1.0, "b": -1.5, "c": -2.25, "d": -0.5, "e": -3.0}


@pytest.mark.parametrize(
    ("rule", "threshold", "positives"),
    [
        ("top_percent", 10, "d"),
        ("top_percent", 39, "d"),
        ("top_percent", 40, "da"),
        ("top_percent", 79.9, "dab"),
        ("top_percent", 100, "dabce"),
        ("top_percent", 0, "d"),
        ("margin", 0, "d"),
        ("margin", 0.5, "da"),
        ("margin", 1.0, "dab"),
        ("margin", 1.74, "dab"),
        ("margin", 1.75, "dabc"),
        ("margin", 9, "dabce"),
        ("at_least", -1.0, "da"),
        ("at_least", 0, ""),
    ],
)
def test_rules_choose_by_hand_computed_values(rule: str, threshold: float, positives: str) -> None:
    judged = Rule(rule, threshold).judge(SCORES)
    assert [j.doc_id for j in judged] == list("dabce")
    assert [j.rank for j in judged] == [1, 2, 3, 4, 5]
    assert [j.score for j in judged] == [-0.5, -1.0, -1.5, -2.25, -3.0]
    assert "".join(j.doc_id for j in judged if j.label) == positives
    assert all(j.grade == j.label for j in judged)


def test_thirty_one_passages_give_three_positives_at_ten_percent() -> None:
    judged = Rule("top_percent", 10).judge({f"d{n:02}": -n / 10 for n in range(31)})
    assert [j.doc_id for j in judged if j.label] == ["d00", "d01", "d02"]


def test_equal_scores_are_ranked_by_passage_id() -> None:
    judged = Rule("top_percent", 50).judge({"d9": -1.0, "d10": -1.0, "d1": -2.0})
    assert [j.doc_id for j in judged] == ["d10", "d9", "d1"]


def test_likelihood_scores_are_nat_a_target_token(tmp_path: Path) -> None:
    sums = {"nectar": (-3.0, 6), "hives": (-8.0, 4), "violin": (-1.0, 1), "years": (-0.9, 1)}
    engine = Scripted(lambda r: Reply.of_score(*next(v for word, v in sums.items() if word in r.prefix)))
    judged, _ = run(tmp_path, RANKS, engine)
    assert {j.doc_id: j.score for j in judged["q1"]} == {"d1": -0.5, "d2": -2.0, "d3": -1.0, "d4": -0.9}
    assert {r.target for r in engine.asked} == {" what do bees make"}
    assert [json.loads(r.output)["tokens"] for r in kept(tmp_path, "likelihood_question")].count(1) == 2


def test_the_gold_answer_is_scored_after_question_and_passage(tmp_path: Path) -> None:
    annotator = Likelihood(template="likelihood_answer", target="answer", rule="margin", threshold=0.5)
    engine = Scripted(nat_by_passage({"d1": -0.5, "d2": -2.0, "d3": -3.0, "d4": -0.75}))
    judged, _ = run(tmp_path, annotator, engine)
    assert annotator.stages == ("likelihood_answer",)
    assert {r.target for r in engine.asked} == {" honey"}
    assert all("what do bees make" in r.prefix for r in engine.asked)
    assert [j.doc_id for j in judged["q1"] if j.label] == ["d1", "d4"]


def test_question_and_answer_are_both_scored_and_questions_asked_before_are_not_asked_again(tmp_path: Path) -> None:
    alone = {"d1": (-2.0, 4), "d2": (-4.0, 4), "d3": (-2.0, 4), "d4": (-2.0, 4)}
    mead, honey = {"d1": -8.0, "d2": -4.5, "d3": -9.0, "d4": -5.0}, {"d1": -3.0, "d2": -9.0, "d3": -4.0, "d4": -7.0}
    named = {text: doc_id for doc_id, text in POOL.items()}

    def reply(request: Score) -> Reply:
        doc_id = next(d for text, d in named.items() if text in request.prefix)
        if "Answer" not in request.target:
            return Reply.of_score(*alone[doc_id])
        return Reply.of_score(honey[doc_id], 6) if "honey" in request.target else Reply.of_score(mead[doc_id], 8)

    question = replace(BEES, answers=("honey", "mead wine"))
    run(tmp_path, RANKS, Scripted(reply), [question])
    engine = Scripted(reply)
    judged, _ = run(tmp_path, Likelihood(template="likelihood_both", target="both", threshold=25), engine, [question])
    assert {r.target for r in engine.asked} == {
        " what do bees make\nAnswer: honey", " what do bees make\nAnswer: mead wine"
    }  # fmt: skip
    # the mean of the question's 4 tokens, and that of the likelier answer's: 2 tokens of honey, 4 of mead wine
    expected = {"d1": -0.5 - 0.5, "d2": -1.0 - 0.5 / 4, "d3": -0.5 - 1.0, "d4": -0.5 - 0.75}
    assert {j.doc_id: j.score for j in judged["q1"]} == expected
    assert [j.doc_id for j in judged["q1"] if j.label] == ["d1"]


def test_a_question_without_gold_answer_is_left_out(tmp_path: Path) -> None:
    annotator = Likelihood(template="likelihood_answer", target="answer")
    engine = Scripted(nat_by_passage({"d1": -0.5, "d2": -2.0, "d3": -3.0, "d4": -0.75}))
    judged, _ = run(tmp_path, annotator, engine, [Question("q0", "why", POOL), BEES])
    assert list(judged) == ["q1"]


def test_a_pseudo_answer_is_written_from_the_pool_and_scored(tmp_path: Path) -> None:
    annotator = Likelihood(template="likelihood_answer", target="answer", answer="pseudo")
    scores = nat_by_passage({"d1": -2.0, "d2": -0.5, "d3": -3.0, "d4": -0.75})
    engine = Scripted(lambda r: scores(r) if isinstance(r, Score) else " Sweet honey.\n")
    question = Question("q0", "what is made", POOL)
    judged, _ = run(tmp_path, annotator, engine, [question])
    assert all(text in engine.asked[0].messages[-1][1] for text in POOL.values())
    assert [r.target for r in engine.asked[1:]] == [" Sweet honey."] * 4
    assert [j.doc_id for j in judged["q0"] if j.label] == ["d2"]
    assert run(tmp_path, annotator, None, [question])[0] == judged


def test_an_empty_pseudo_answer_gives_no_label(tmp_path: Path) -> None:
    annotator = Likelihood(template="likelihood_answer", target="answer", answer="pseudo")
    judged, chains = run(tmp_path, annotator, Scripted(lambda r: "\n"))
    assert judged == {}
    assert [(f.stage, f.outcome) for f in chains.progress.failures] == [("pseudo_answer", Outcome.EMPTY)]


@pytest.mark.parametrize(
    ("option", "value"),
    [("target", "passage"), ("answer", "silver"), ("rule", "best"), ("threshold", -1), ("threshold", 101)],
)
def test_an_impossible_option_is_named(option: str, value: object) -> None:
    with pytest.raises(UserError, match=f"annotator.{option}={value!r}"):
        Likelihood(template="likelihood_question", **{option: value})


@pytest.mark.parametrize(("rule", "threshold"), [("top_percent", 10), ("margin", 0), ("at_least", -9)])
@pytest.mark.parametrize("answered", [0, 1, 2, 3, 4])
def test_rules_that_compare_passages_need_half_of_a_pool(rule: str, threshold: float, answered: int) -> None:
    scores = {f"d{n}": -float(n) if n < answered else None for n in range(4)}
    judged = Rule(rule, threshold).judge_answered(scores)
    needed = 1 if rule == "at_least" else 2
    assert (judged is None) == (answered < needed)
    assert judged is None or [j.doc_id for j in judged] == [f"d{n}" for n in range(answered)]
    assert Rule(rule, threshold).judge_answered({}) == []


def test_equal_scores_are_not_cut_through() -> None:
    judged = Rule("top_percent", 25).judge({"a": -1.0, "b": -1.0, "c": -1.0, "d": -2.0})
    assert [j.label for j in judged] == [1, 1, 1, 0]


def test_a_floor_leaves_a_pool_of_nothing_useful_without_a_positive() -> None:
    scores = {"a": -0.5, "b": -0.25, "c": 0.125}
    assert [j.doc_id for j in Rule("top_percent", 67, floor=0.0).judge(scores) if j.label] == ["c"]
    assert not any(j.label for j in Rule("top_percent", 67, floor=0.5).judge(scores))
    assert [j.doc_id for j in Rule("margin", 9, floor=-0.25).judge(scores) if j.label] == ["c", "b"]


def test_each_rule_has_a_threshold_of_its_own() -> None:
    assert (Rule("top_percent").least, Rule("margin").least) == (10.0, 0.2)
    with pytest.raises(UserError, match="rule=at_least needs the least score"):
        Rule("at_least")
    metric = {rule: QAMetric(template="qa_metric", rule=rule)._rule.least for rule in ("at_least", "top_percent", "margin")}
    assert metric == {"at_least": 0.5, "top_percent": 10.0, "margin": 0.2}


@pytest.mark.parametrize(
    ("sizes", "percent", "note"),
    [
        ([8, 8, 5], 10, "annotator.threshold=10 is 1 of 8 passages, as any percentage below 25"),
        ([8], 26, "annotator.threshold=26 is 2 of 8 passages, as 25 to below 37.5"),
        ([8], 100, "annotator.threshold=100 is 8 of 8 passages"),
        ([], 10, None),
    ],
)
def test_percentages_that_come_to_the_same_are_named(sizes: list[int], percent: float, note: str | None) -> None:
    assert same_thresholds(sizes, percent) == note


def logprob(values: dict[tuple[str, str], float]) -> Scripted:
    """Nat of a target after a passage, both known by a word; a prompt without a passage is known by ''."""

    def answer(request: Request) -> Reply:
        passage = next((text for text in POOL.values() if text in request.prefix), "")
        key = next(k for k in values if k[0] == passage[:4] and k[1] in request.target)
        return Reply.of_score(values[key], 1)

    return Scripted(answer)


def test_of_several_gold_answers_the_likeliest_counts(tmp_path: Path) -> None:
    pool = {d: POOL[d] for d in ("d1", "d3")}  # Bees, A vi
    question = Question("q", "who", pool, ("first", "second"))
    values = {("Bees", "first"): -3.0, ("Bees", "second"): -1.0, ("A vi", "first"): -2.0, ("A vi", "second"): -4.0}
    annotator = Likelihood(template="likelihood_answer", target="answer")
    judged, _ = run(tmp_path, annotator, logprob(values), [question])
    assert [(j.doc_id, j.score, j.label) for j in judged["q"]] == [("d1", -1.0, 1), ("d3", -2.0, 0)]


def test_what_a_passage_adds_is_told_from_how_likely_the_question_is_anyway(tmp_path: Path) -> None:
    pool = {d: POOL[d] for d in ("d1", "d3")}
    values = {("Bees", ""): -1.5, ("A vi", ""): -1.0, ("", ""): -1.25}
    annotator = Likelihood(template="likelihood_question", gain=True, floor=0.0, threshold=100.0)
    engine = logprob(values)
    judged, _ = run(tmp_path, annotator, engine, [Question("q", "what", pool)])
    assert [(j.doc_id, j.score, j.label) for j in judged["q"]] == [("d3", 0.25, 1), ("d1", -0.25, 0)]
    assert [r.prefix for r in engine.asked if not any(text in r.prefix for text in pool.values())] == [
        "A question that this passage answers:"
    ]


def test_passages_of_equal_text_share_their_label(tmp_path: Path) -> None:
    pool = {"d1": POOL["d1"], "copy": POOL["d1"], "d3": POOL["d3"], "d2": POOL["d2"]}
    chain = replies(relsel="My selection:[[1],[3]]", pseudo_answer="Honey.", utilsel="My selection:[[1]]")
    judged, _ = run(tmp_path, UtilSel(template="utilsel"), Scripted(chain), [Question("q1", "what do bees make", pool)])
    assert {j.doc_id: (j.label, j.grade) for j in judged["q1"]} == {"d1": (1, 2), "copy": (1, 2), "d3": (0, 1), "d2": (0, 0)}
    assert sorted(j.rank for j in judged["q1"]) == [1, 2, 3, 4]
