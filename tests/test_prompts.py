"""Prompts as data, and what is read out of the replies to them."""

import subprocess
import sys
from pathlib import Path

import pytest

from uar.annotation.parsing import parse_ranking, parse_selection
from uar.errors import DataError
from uar.llm.prompts import load_chat, load_text
from uar.llm.prompts.template import packaged
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_text

LIST = frozenset({"query", "passages", "considered"})
JUDGED = LIST | {"answer"}
PASSAGES = ["Bees make honey.", "A violin has four strings."]
QUERY = "what do bees {make}?"


@pytest.mark.parametrize(
    ("name", "supplied"),
    [("relsel", LIST), ("utilsel", JUDGED), ("utilrank", JUDGED), ("pseudo_answer", LIST), ("rag_short", LIST)],
)
def test_chat_prompts_show_the_question_and_every_passage(name: str, supplied: frozenset[str]) -> None:
    messages = load_chat(name, supplied).render(query=QUERY, passages=PASSAGES, answer="Honey it is.")
    text = "\n".join(content for _, content in messages)
    assert all(passage in text for passage in PASSAGES)
    assert QUERY in messages[-1][1]
    assert ("Honey it is." in messages[-1][1]) == ("answer" in supplied)
    assert "{{" not in text and "{%" not in text
    roles = [role for role, _ in messages]
    assert roles[-1] == "user" and all(a != b for a, b in zip(roles, roles[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "supplied", "target"),
    [
        ("likelihood_question", {"passage", "query"}, " what do bees {make}?"),
        ("likelihood_answer", {"passage", "query", "answer"}, " honey"),
    ],
)
def test_likelihood_prompts_end_in_the_target(name: str, supplied: set[str], target: str) -> None:
    prefix, found = load_text(name, frozenset(supplied)).render(passage=PASSAGES[0], query=QUERY, answer="honey")
    assert found == target
    assert prefix.startswith(PASSAGES[0]) and not prefix[-1].isspace()


def test_every_packaged_prompt_is_rendered_by_a_test() -> None:
    assert set(packaged("prompts")) == {
        "relsel", "utilsel", "utilrank", "pseudo_answer", "rag_short", "likelihood_question", "likelihood_answer",
        "passages", "pointwise", "qa_metric",  # in the tests of their annotators
        "rag_closed_book", "rag_closed_book_sentence", "rag_sentence", "rag_rewrite", "rag_verify",  # in test_rag.py
        "write_questions",  # in test_questions.py
    }  # fmt: skip


@pytest.mark.parametrize(("name", "supplied"), [("relsel", LIST), ("utilsel", JUDGED)])
def test_selection_follows_the_turns_of_the_paper(name: str, supplied: frozenset[str]) -> None:
    messages = load_chat(name, supplied).render(query="QUERY", passages=PASSAGES, answer="ANSWER")
    assert [role for role, _ in messages] == ["user", "assistant"] * 4 + ["user"]
    texts = [text for _, text in messages]
    assert "QUERY" not in texts[0] and "Bees" not in texts[0]
    assert "QUERY" in texts[2] and "2 passages" in texts[2] and "Bees" not in texts[2]
    assert [texts[4], texts[6]] == ["[1] Bees make honey.", "[2] A violin has four strings."]
    assert "[1]" in texts[5] and "[2]" in texts[7]
    assert "QUERY" in texts[8] and "My selection:[[i],[j],...]" in texts[8]
    assert "Bees" not in texts[8]


def test_neighbouring_turns_of_one_role_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "joined.yaml"
    path.write_text(
        "variables: [query, passages]\nturns:\n- {role: user, content: Read.}\n"
        "- {role: user, each: passages, content: '[{{ number }}] {{ passage }}'}\n- {role: user, content: '{{ query }}'}\n"
    )
    messages = load_chat(str(path), LIST).render(query="why", passages=PASSAGES)
    assert messages == (("user", "Read.\n[1] Bees make honey.\n[2] A violin has four strings.\nwhy"),)


TURN = "turns: [{role: user, content: '%s'}]\n"
BROKEN = {
    "undeclared": ("variables: [query]\n" + TURN % "{{ query }} {{ mood }}", "mood"),
    "undeclared_in_reply": ("variables: []\nturns: [{role: user, content: x, reply: '{{ mood }}'}]\n", "mood"),
    "not_supplied": ("variables: [query, answer]\n" + TURN % "{{ answer }}", "answer"),
    "number_outside_each": ("variables: [query]\n" + TURN % "[{{ number }}] {{ query }}", "number"),
    "unknown_role": ("variables: []\nturns: [{role: robot, content: x}]\n", "robot"),
    "no_role": ("variables: []\nturns: [{content: x}]\n", "role"),
    "unknown_key": ("variables: []\nturns: [{role: user, text: x}]\n", "text"),
    "unknown_each": ("variables: [passages]\nturns: [{role: user, each: documents, content: x}]\n", "documents"),
    "broken_yaml": ("variables: [query\nturns: x\n", "YAML"),
    "broken_template": ("variables: [query]\n" + TURN % "{{ query ", "template"),
    "unknown_filter": ("variables: [query]\n" + TURN % "{{ query | shout }}", "shout"),
    "not_a_mapping": ("- a\n- b\n", "variables"),
    "variables_not_names": ("variables: [{a: b}]\n" + TURN % "x", "variables"),
    "no_turns": ("variables: [query]\n", "turns"),
    "reply_not_text": ("variables: [passages]\nturns: [{role: user, each: passages, content: x, reply: 3}]\n", "reply"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_prompt_is_refused_with_its_file_name(tmp_path: Path, name: str) -> None:
    text, told = BROKEN[name]
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        load_chat(str(path), LIST)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value).removeprefix(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("variables: [query]\nprefix: '{{ query }}'\n", "target"),
        ("variables: [query]\nprefix: [a]\ntarget: b\n", "prefix"),
        ("variables: [query]\nprefix: '{{ passage }}'\ntarget: b\n", "passage"),
        ("variables: [query]\nprefix: '{{ number }}'\ntarget: b\n", "number"),
    ],
)
def test_a_broken_likelihood_prompt_is_refused_with_its_file_name(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "likelihood.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=told) as error:
        load_text(str(path), frozenset({"passage", "query"}))
    assert str(error.value).startswith(str(path))


def test_a_prompt_in_another_encoding_is_refused_with_its_file_name(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("variables: []\nturns: [{role: user, content: für}]\n".encode("latin-1"))
    with pytest.raises(DataError) as error:
        load_chat(str(path), LIST)
    assert str(error.value).startswith(str(path))


def test_an_unknown_prompt_is_told_the_known_ones() -> None:
    with pytest.raises(DataError, match="relsel.*utilsel"):
        load_chat("no_such_prompt", LIST)


def test_the_hash_changes_with_the_wording(tmp_path: Path) -> None:
    hashes = set()
    for wording in ("Choose.", "Choose!"):
        path = tmp_path / wording / "selection.yaml"
        path.parent.mkdir()
        path.write_text("variables: [query]\n" + TURN % wording)
        hashes.add(load_chat(str(path), LIST).hash)
    assert len(hashes) == 2


REPLIES = [
    ("My selection:[[2],[5]]", Outcome.OK, [2, 5]),
    ("My selection: [[5], [2]]", Outcome.OK, [5, 2]),
    ("My selection:[[2],[5],[2]]", Outcome.OK, [2, 5]),
    ("My selection:[]", Outcome.OK, []),
    ("[ ]", Outcome.OK, []),
    ("My selection: [2, 5]", Outcome.OK, [2, 5]),
    ("My selection: [[1, 2]]", Outcome.OK, [1, 2]),
    ("My selection: [[1], [2, 3]]", Outcome.OK, [1, 2, 3]),
    ("My selection: [1], [2] and [4]", Outcome.OK, [1, 2, 4]),
    ("My selection: [1] [2]", Outcome.OK, [1, 2]),
    ("My selection:[]\n(None of [1], [2] answers)", Outcome.OK, []),
    ("[1] and [3] look good.\n**My selection:** [[2],[4]], since [5] is off", Outcome.OK, [2, 4]),
    ("My selection:[[1]]\nNo, rather: my selection: [[3]]", Outcome.OK, [3]),
    ("My selection: none of [1], [2]", Outcome.UNPARSABLE, []),
    ("My selection:[[1],[2]", Outcome.UNPARSABLE, []),
    ("[[3],[1]]", Outcome.OK, [3, 1]),
    ("```json\n[3, 1]\n```", Outcome.OK, [3, 1]),
    ("Selected passages: [3].", Outcome.OK, [3]),
    ("Only passage [3] is about this.", Outcome.UNPARSABLE, []),
    ("None of [1], [2]", Outcome.UNPARSABLE, []),
    ("My selection:[[1],[6]]", Outcome.OUT_OF_RANGE, []),
    ("My selection:[[0]]", Outcome.OUT_OF_RANGE, []),
    ("My selection: [99999999999999999999]", Outcome.OUT_OF_RANGE, []),
    ("", Outcome.EMPTY, []),
    (" \n ", Outcome.EMPTY, []),
    ("I'm sorry, but I can't help with that.", Outcome.REFUSED, []),
    ("As an AI language model I have no opinion.", Outcome.REFUSED, []),
    ("The first and the third passage.", Outcome.UNPARSABLE, []),
    ("My selection:[[i],[j],...]", Outcome.UNPARSABLE, []),
    ("My selection:[[1", Outcome.UNPARSABLE, []),
]


@pytest.mark.parametrize(("text", "outcome", "chosen"), REPLIES)
def test_a_selection_is_read_or_its_failure_named(text: str, outcome: Outcome, chosen: list[int]) -> None:
    assert parse_selection(Reply(text), range(1, 6)) == (outcome, chosen)


@pytest.mark.parametrize(
    ("text", "outcome", "order"),
    [
        ("[2] > [3] > [1]", Outcome.OK, [2, 3, 1]),
        ("Since [1] > [2] in style: [2]>[3] > [1], not [3] > [1]", Outcome.OK, [2, 3, 1]),
        ("At first [1] > [2] > [3], then\n[3] > [2] > [1]", Outcome.OK, [3, 2, 1]),
        ("Ranking: [3], [1]", Outcome.OK, [3, 1, 2]),
        ("[2]", Outcome.OK, [2, 1, 3]),
        ("[3] helps most, [1] least.", Outcome.UNPARSABLE, []),
        ("[1] > [4]", Outcome.OUT_OF_RANGE, []),
    ],
)
def test_a_ranking_is_the_longest_run_of_its_form(text: str, outcome: Outcome, order: list[int]) -> None:
    assert parse_ranking(Reply(text), range(1, 4)) == (outcome, order)


@pytest.mark.parametrize("outcome", [Outcome.TRUNCATED, Outcome.ERROR, Outcome.REFUSED])
def test_a_failed_reply_selects_nothing_whatever_it_says(outcome: Outcome) -> None:
    assert parse_selection(Reply("My selection:[[1],[2", outcome), range(1, 6)) == (outcome, [])
    assert check_text(Reply("some text", outcome)) == outcome


def test_a_long_list_that_never_closes_does_not_hang() -> None:
    program = """
from uar.annotation.parsing import parse_selection
from uar.llm.record import Reply
assert parse_selection(Reply("[" + "2010, " * 200 + "and so on"), range(1, 6)) == ("unparsable", [])
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(("text", "outcome"), [("Honey.", Outcome.OK), ("", Outcome.EMPTY), ("\n", Outcome.EMPTY)])
def test_a_free_answer_is_good_unless_empty(text: str, outcome: Outcome) -> None:
    assert check_text(Reply(text)) == outcome
