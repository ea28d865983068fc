"""Annotators that ask others: several samples or models that vote, and labels that somebody else made."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import BEES, POOL, Scripted, kept, replayed, replies, run, stage_of

from uar.annotation.annotators import (
    Annotator,
    Ensemble,
    Judgement,
    Likelihood,
    Pointwise,
    QAMetric,
    Question,
    RelSel,
    UtilRank,
    UtilSel,
)
from uar.collections import open_collection
from uar.errors import UserError
from uar.llm.pooled import question_of
from uar.llm.record import Choose, Outcome, Reply
from uar.llm.store.store import Store

RELSEL = RelSel(template="relsel")
VOTES = Ensemble(RELSEL, samples=3)
BY_SAMPLE = ["My selection:[[1],[2]]", "My selection:[[2],[1],[4]]", "My selection:[[1]]"]
RANKINGS = ["[1] > [2] > [3] > [4]", "[2] > [1] > [4] > [3]", "[1] > [4] > [2] > [3]"]


def scores(judged: dict[str, list[Judgement]]) -> dict[str, float]:
    return {j.doc_id: round(j.score, 6) for j in judged["q1"]}


def unsure(judged: dict[str, list[Judgement]]) -> dict[str, float]:
    return {j.doc_id: round(j.uncertainty, 6) for j in judged["q1"]}


def positives(judged: dict[str, list[Judgement]]) -> list[str]:
    return [j.doc_id for j in judged["q1"] if j.label]


def test_samples_are_different_calls_whose_votes_are_counted(tmp_path: Path) -> None:
    engine = Scripted(lambda r: BY_SAMPLE[r.sample])
    judged, chains = run(tmp_path, VOTES, engine)
    assert sorted((r.temperature, r.sample) for r in engine.asked) == [(0.7, 0), (0.7, 1), (0.7, 2)]
    assert len({r.key("m") for r in engine.asked}) == len(kept(tmp_path, "relsel")) == 3
    assert engine.most == 3  # they are asked together
    assert [replace(j, votes=()) for j in judged["q1"]] == [
        Judgement("d1", 1, 1, 1.0, 1, 0.0),
        Judgement("d2", 1, 1, pytest.approx(2 / 3), 2, pytest.approx(0.918296, abs=1e-6)),
        Judgement("d4", 0, 0, pytest.approx(1 / 3), 3, pytest.approx(0.918296, abs=1e-6)),
        Judgement("d3", 0, 0, 0.0, 4, 0.0),
    ]
    for threshold, wanted in ((0.3, ["d1", "d2", "d4"]), (0.67, ["d1"]), (1.0, ["d1"])):
        again = Scripted(lambda r: "")
        judged, _ = run(tmp_path, replace(VOTES, threshold=threshold), again)
        assert (positives(judged), again.asked) == (wanted, [])


def test_more_samples_ask_only_the_new_ones(tmp_path: Path) -> None:
    run(tmp_path, replace(VOTES, samples=2), Scripted(lambda r: BY_SAMPLE[r.sample]))
    engine = Scripted(lambda r: BY_SAMPLE[r.sample])
    run(tmp_path, VOTES, engine)
    assert [r.sample for r in engine.asked] == [2]


def test_mean_ranks_order_and_the_best_share_is_positive(tmp_path: Path) -> None:
    select_all = "My selection:[[1],[2],[3],[4]]"
    engine = Scripted(
        lambda r: {"relsel": select_all, "pseudo_answer": "Honey."}.get(stage_of(r)) or RANKINGS[r.sample], window=1
    )
    annotator = Ensemble(UtilRank(template="utilrank"), samples=3, combine="mean_rank", threshold=50)
    judged, _ = run(tmp_path, annotator, engine)
    # ranks: d1 1,2,1  d2 2,1,3  d3 3,4,4  d4 4,3,2
    assert [(j.doc_id, j.label, j.rank) for j in judged["q1"]] == [("d1", 1, 1), ("d2", 1, 2), ("d4", 0, 3), ("d3", 0, 4)]
    assert scores(judged) == {"d1": -1.333333, "d2": -2.0, "d4": -3.0, "d3": -3.666667}
    assert unsure(judged) == {"d1": 0.117851, "d2": 0.204124, "d4": 0.204124, "d3": 0.117851}
    assert {j.doc_id: j.grade for j in judged["q1"]} == {"d1": 2, "d2": 1, "d4": 1, "d3": 1}  # of 2,1,2 and 1,2,1
    again = Scripted(lambda r: "")
    judged, _ = run(tmp_path, replace(annotator, combine="votes", threshold=0.5), again)
    assert (positives(judged), again.asked) == (["d1"], [])


def test_every_member_goes_its_own_way_through_the_chain(tmp_path: Path) -> None:
    chain = {"relsel": BY_SAMPLE, "pseudo_answer": ["Wax.", "Honey.", "Hives."], "utilsel": ["My selection:[[1]]"] * 3}
    engine = Scripted(lambda r: chain[stage_of(r)][r.sample])
    judged, _ = run(tmp_path, Ensemble(UtilSel(template="utilsel"), samples=3), engine)
    assert sorted(engine.stages) == ["pseudo_answer"] * 3 + ["relsel"] * 3 + ["utilsel"] * 3
    told = {r.sample: r.messages[-1][1] for r in engine.asked if stage_of(r) == "utilsel"}
    assert all(f"Reference answer: {text}" in told[n] for n, text in enumerate(chain["pseudo_answer"]))
    assert scores(judged) == {"d1": 0.666667, "d2": 0.333333, "d3": 0.0, "d4": 0.0}


def test_two_models_vote_and_their_records_bear_their_names(tmp_path: Path, folder: Path) -> None:
    collection = open_collection(f"local:{folder}:train")
    pool = ["d1", "d2", "d3", "d4"]
    questions = [question_of(collection, q, pool) for q in collection.queries]
    engines = [Scripted(replies(relsel="My selection:[[1],[2]]")), Scripted(replies(relsel="My selection:[[2],[3]]"))]
    annotator = Ensemble(RELSEL, models=2, threshold=0.6)
    judged, chains = run(tmp_path / "store", annotator, engines, questions, collection=collection.slug)
    assert [len(engine.asked) for engine in engines] == [3, 3]
    assert {(r.temperature, r.sample) for engine in engines for r in engine.asked} == {(0.0, 0)}
    assert positives(judged) == ["d2"] and scores(judged) == {"d2": 1.0, "d1": 0.5, "d3": 0.5, "d4": 0.0}
    store = Store(tmp_path / "store")
    for model, output in (("scripted@1", "My selection:[[1],[2]]"), ("scripted@2", "My selection:[[2],[3]]")):
        records = list(store.records(collection.slug, ["relsel"], model))
        assert [r.output for r in records] == [output] * 3
    models = ["scripted@1", "scripted@2"]
    assert replayed(store.folder, annotator, models, collection, pool) == {q.id: judged[q.id] for q in questions}
    assert replayed(store.folder, annotator, models[::-1], collection, pool).keys() == judged.keys()
    assert replayed(store.folder, annotator, ["scripted@1", "another"], collection, pool) == {}
    (alone,) = {
        tuple(j.doc_id for j in js if j.label) for js in replayed(store.folder, RELSEL, models[1:], collection, pool).values()
    }
    assert alone == ("d2", "d3")


def test_samples_of_two_models_are_four_members(tmp_path: Path) -> None:
    engines = [Scripted(lambda r: BY_SAMPLE[r.sample]), Scripted(lambda r: BY_SAMPLE[r.sample + 1])]
    judged, _ = run(tmp_path, Ensemble(RELSEL, samples=2, models=2), engines)
    assert scores(judged) == {"d1": 1.0, "d2": 0.75, "d4": 0.5, "d3": 0.0}
    assert [len(kept(tmp_path, "relsel", model=f"scripted@{n}")) for n in (1, 2)] == [2, 2]


def test_a_member_that_fails_abstains_and_is_listed(tmp_path: Path) -> None:
    texts = [BY_SAMPLE[0], "prose", BY_SAMPLE[2]]
    judged, chains = run(tmp_path, VOTES, Scripted(lambda r: texts[r.sample]))
    assert scores(judged) == {"d1": 1.0, "d2": 0.5, "d3": 0.0, "d4": 0.0}
    assert unsure(judged) == {"d1": 0.0, "d2": 1.0, "d3": 0.0, "d4": 0.0}
    assert [(f.stage, f.outcome, f.output) for f in chains.progress.failures] == [("relsel", Outcome.UNPARSABLE, "prose")]


def test_a_passage_that_too_few_members_judged_gets_no_label(tmp_path: Path) -> None:
    def engine(*failing: str) -> Scripted:
        bad = [POOL[d] for d in failing]
        return Scripted(lambda r: "" if any(text in str(r) for text in bad) else "honey")

    annotator = Ensemble(QAMetric(template="qa_metric"), models=3)
    judged, _ = run(tmp_path, annotator, [engine("d1", "d2"), engine("d1"), engine()])
    assert scores(judged) == {"d2": 1.0, "d3": 1.0, "d4": 1.0}


@pytest.mark.parametrize(
    ("samples", "failing", "labelled"), [(3, 2, False), (4, 2, True), (4, 3, False), (2, 1, True), (2, 2, False)]
)
def test_where_less_than_half_answer_there_is_no_label(tmp_path: Path, samples: int, failing: int, labelled: bool) -> None:
    engine = Scripted(lambda r: "" if r.sample < failing else "My selection:[[1]]")
    judged, chains = run(tmp_path, Ensemble(RELSEL, samples=samples), engine)
    assert ("q1" in judged) == labelled
    assert len(chains.progress.failures) == failing
    assert not labelled or positives(judged) == ["d1"]


def test_grades_of_pointwise_members_are_averaged(tmp_path: Path) -> None:
    def engine(best: str, value: float) -> Scripted:
        logs = {"0": -9.0, "1": 0.0, "2": -9.0, "3": -9.0}
        return Scripted(lambda r: Reply.of_choices(logs | ({"3": value} if POOL[best] in str(r) else {})))

    annotator = Ensemble(Pointwise(template="pointwise"), models=2, threshold=0.75)
    judged, _ = run(tmp_path, annotator, [engine("d1", 3.0), engine("d1", 3.0)])
    assert [(j.doc_id, j.label, j.grade) for j in judged["q1"]][:2] == [("d1", 1, 3), ("d2", 0, 1)]
    judged, _ = run(tmp_path / "other", annotator, [engine("d1", 3.0), engine("d4", 3.0)])
    assert scores(judged) == {"d1": 0.5, "d4": 0.5, "d2": 0.0, "d3": 0.0} and positives(judged) == []
    assert {j.doc_id: j.grade for j in judged["q1"]} == {"d1": 2, "d4": 2, "d2": 1, "d3": 1}


def test_likelihoods_of_two_models_are_combined_by_rank(tmp_path: Path) -> None:
    def engine(*values: float) -> Scripted:
        by_text = dict(zip(POOL.values(), values, strict=True))
        return Scripted(lambda r: Reply.of_score(next(v for text, v in by_text.items() if text in r.prefix), 1))

    annotator = Ensemble(Likelihood(template="likelihood_question"), models=2, combine="mean_rank", threshold=25)
    judged, _ = run(tmp_path, annotator, [engine(-1, -2, -3, -4), engine(-4, -1, -3, -2)])
    assert scores(judged) == {"d2": -1.5, "d1": -2.5, "d3": -3.0, "d4": -3.0} and positives(judged) == ["d2"]
    gold = Ensemble(Likelihood(template="likelihood_answer", target="answer"), models=2)
    assert gold.needs_gold_answers and not annotator.needs_gold_answers
    assert run(tmp_path, gold, [engine(-1, -2, -3, -4)] * 2, [replace(BEES, answers=())])[0] == {}


def test_samples_of_grades_that_are_written_are_asked_for(tmp_path: Path) -> None:
    engine = Scripted(lambda r: f"<think>hm</think>{r.sample + 1}")
    judged, _ = run(tmp_path, Ensemble(Pointwise(template="pointwise", reasoning=True), samples=3), engine)
    assert len(engine.asked) == 12
    assert {(round(j.score, 6), j.grade, j.label) for j in judged["q1"]} == {(0.666667, 2, 1)}


FORMS = ["pointwise", "pointwise_last", "pointwise_negated", "pointwise_choice", "pointwise_true"]
FORMS += ["pointwise_leading_yes", "pointwise_leading_no"]
REPLIES = {  # choices -> the one that is likely where the passage is useful, and where it is not
    ("0", "1", "2", "3"): ("2", "1"),
    ("A", "B", "C", "D"): ("B", "C"),
    ("True", "False"): ("True", "False"),
}


def in_form(useful: bool, request: Choose) -> Reply:
    text = request.messages[-1][1]
    sure = "does not help" in text or "useless" in text  # what is asked is the opposite
    yes, no = REPLIES.get(request.choices, ("Yes", "No"))
    likely = yes if useful != sure else no
    return Reply.of_choices({choice: -0.1 if choice == likely else -4.0 for choice in request.choices})


def test_prompts_of_several_forms_agree_where_the_model_is_sure_of_its_answer(tmp_path: Path) -> None:
    useful = {"d1": True, "d2": False, "d3": False, "d4": True}
    truth = {POOL[d]: said for d, said in useful.items()}
    engine = Scripted(lambda r: in_form(next(v for text, v in truth.items() if text in str(r)), r))
    ensemble = Ensemble(Pointwise(template="pointwise"), templates=FORMS)
    judged, _ = run(tmp_path, ensemble, engine)
    assert len({r.messages for r in engine.asked}) == 4 * 7
    assert {j.doc_id: (j.label, j.score, j.uncertainty) for j in judged["q1"]} == {
        d: (int(said), float(said), 0.0) for d, said in useful.items()
    }
    for name in FORMS:  # each alone gives a grade of the scale too
        alone, _ = run(tmp_path, Pointwise(template=name), engine)
        assert {j.doc_id: j.grade for j in alone["q1"] if j.label} in ({"d1": 2, "d4": 2}, {"d1": 3, "d4": 3}), name


def test_doubt_is_the_entropy_of_the_votes_of_the_prompts(tmp_path: Path) -> None:
    says = Scripted(lambda r: in_form("true of it" not in str(r), r))  # the choice alone says no
    ensemble = Ensemble(Pointwise(template="pointwise"), templates=["pointwise", "pointwise_negated", "pointwise_choice"])
    judged, _ = run(tmp_path, ensemble, says)
    by_hand = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert [(j.votes, j.label) for j in judged["q1"]] == [((1, 1, 0), 1)] * 4
    assert [j.uncertainty for j in judged["q1"]] == pytest.approx([by_hand] * 4)
    assert ensemble.asks()["templates"] != replace(ensemble, templates=FORMS[:3]).asks()["templates"]


@pytest.mark.parametrize(
    ("replies", "said"),
    [("roman", "replies: 'roman'; allowed: numbers, reversed, letters"), ({"Yes": "good", "No": "bad"}, "two in quotes, ")],
)
def test_a_prompt_of_an_unknown_form_is_one_line(tmp_path: Path, replies: object, said: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        json.dumps({"variables": ["query"], "replies": replies, "turns": [{"role": "user", "content": "{{ query }}"}]})
    )
    with pytest.raises(UserError, match=said):
        Ensemble(Pointwise(template="pointwise"), templates=["pointwise", str(own)])


def test_a_reversed_number_is_read_from_a_text(tmp_path: Path) -> None:
    pointwise = Pointwise(template="pointwise_negated", reasoning=True)
    judged, _ = run(tmp_path, pointwise, Scripted(lambda r: "<think>hm</think>0"))
    assert {j.grade for j in judged["q1"]} == {3}
    with pytest.raises(UserError, match="its replies are no numbers"):
        Pointwise(template="pointwise_choice", reasoning=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"samples": 2, "templates": ["relsel", "relsel"]}, "two are one prompt"),
        ({"samples": 1}, "annotator.samples=1 of 1 model"),
        ({"samples": 0, "models": 2}, "annotator.samples=0 of 2 model"),
        ({"samples": 3, "combine": "mean"}, "annotator.combine='mean'"),
        ({"samples": 3, "threshold": 0}, "annotator.threshold=0"),
        ({"samples": 3, "threshold": 1.5}, "annotator.threshold=1.5"),
        ({"samples": 3, "combine": "mean_rank", "threshold": 101}, "annotator.threshold=101"),
        ({"samples": 3, "temperature": 0.0}, "annotator.temperature=0.0"),
        ({"samples": 2, "member": Likelihood(template="likelihood_question")}, "Likelihood says the same each time"),
        ({"samples": 2, "member": Pointwise(template="pointwise")}, "Pointwise says the same each time"),
        ({"samples": 2, "member": Ensemble(RELSEL, samples=2)}, "annotator.member: Ensemble"),
    ],
)
def test_an_impossible_ensemble_is_told_in_one_line(options: dict, told: str) -> None:
    with pytest.raises(UserError) as error:
        Ensemble(**({"member": RELSEL} | options))
    assert told in str(error.value) and "\n" not in str(error.value)


LABELS = {"q1": {"d1": 2, "d2": 0, "d3": 1}, "q2": {"d2": 1, "d4": 0}}


def test_the_threshold_of_an_ensemble_is_that_of_its_rule_unless_given(tmp_path: Path) -> None:
    ten = Question("ten", "which is best", {f"p{n}": f"Passage number {n}." for n in range(20)})
    engines = [Scripted(lambda r: Reply.of_score(-float(re.search(r"number (\d+)", r.prefix)[1]), 1)) for _ in range(2)]
    member = Likelihood(template="likelihood_question")
    judged, _ = run(tmp_path / "ranks", Ensemble(member, models=2, combine="mean_rank"), engines, [ten])
    assert [j.doc_id for j in judged["ten"] if j.label] == ["p0", "p1"]
    selections = [Scripted(replies(relsel=f"My selection:{chosen}")) for chosen in ("[[1]]", "[[1],[2]]")]
    judged, _ = run(tmp_path / "votes", Ensemble(RELSEL, models=2), selections)
    assert positives(judged) == ["d1"]  # one of two is no majority
    judged, _ = run(tmp_path / "votes", Ensemble(RELSEL, models=2, threshold=0.5), selections)
    assert positives(judged) == ["d1", "d2"]


KINDS = [
    (RELSEL, {}),
    (UtilRank(template="utilrank", layout="shared_prefix"), {}),
    (QAMetric(template="qa_metric"), {"q1": "heart", "q2": "wax", "q3": "the Black Sea"}),
]


@pytest.mark.parametrize(("annotator", "answers"), KINDS, ids=["relsel", "utilrank", "qa_metric"])
def test_training_gets_the_judgements_of_a_run_from_its_records(
    tmp_path: Path, folder: Path, annotator: Annotator, answers: dict[str, str]
) -> None:
    collection = open_collection(f"local:{folder}:train")
    questions = [question_of(collection, q, ["d3", "d1", "d2"]) for q in collection.queries]
    chain = replies(relsel="My selection:[[3],[1]]", pseudo_answer="Yes.", utilrank="[3] > [1]")
    by_text = {q.text: answers.get(q.id, "") for q in collection.queries.values()}
    engine = Scripted(lambda r: next(a for text, a in by_text.items() if text in str(r)) if answers else chain(r))
    judged, _ = run(tmp_path / "store", annotator, engine, questions, collection=collection.slug)
    assert len(judged) == 3 and any(j.label for js in judged.values() for j in js)
    store, pool = tmp_path / "store", ["d3", "d1", "d2"]
    assert replayed(store, annotator, ["scripted@1"], collection, pool) == {q: judged[q] for q in collection.queries}
    assert replayed(store, annotator, ["scripted@2"], collection, pool) == {}


def test_a_replay_calibrates_as_the_run_did(tmp_path: Path, folder: Path) -> None:
    collection = open_collection(f"local:{folder}:train")
    values = {d: 1.0 - n for n, d in enumerate(("d1", "d2", "d3", "d4", "d5", "d6"))}
    texts = {collection.corpus.text(collection.corpus.row(d)): v for d, v in values.items()}

    def answer(request: object) -> Reply:
        value = next(v for text, v in texts.items() if text in str(request))
        return Reply.of_choices({"0": -9.0, "1": 0.0, "2": value, "3": -9.0})

    annotator = Pointwise(template="pointwise", calibration_queries=2)
    questions = [question_of(collection, q, list(values)) for q in collection.queries]
    judged, _ = run(tmp_path / "store", annotator, Scripted(answer), questions, collection=collection.slug)
    again, told = annotator.finish(collection, judged, seed=5)
    assert told["temperature"] != 1.0 and again != judged
    assert replayed(tmp_path / "store", annotator, ["scripted@1"], collection, list(values), seed=5) == again
    json.dumps(told)
