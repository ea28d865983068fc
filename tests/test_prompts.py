"""Prompts as data."""

from pathlib import Path

import pytest

from uar.errors import DataError
from uar.llm.prompts import load_chat, load_text
from uar.llm.prompts.template import packaged

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
        "passages", "pointwise", "qa_metric", "setwise", "listwise", "likelihood_both",  # in the tests of their annotators
        "pairwise", "pointwise_reason",  # in test_pairwise.py and test_rationales.py
        "rag_closed_book", "rag_closed_book_sentence", "rag_sentence", "rag_rewrite", "rag_verify",  # in test_rag.py
        "write_questions",  # in test_questions.py
        "pseudo_document", "rewrite_query", "query_keywords",  # in test_expansion.py
        "umbrela",  # in test_prediction_powered.py
        "pointwise_last", "pointwise_negated", "pointwise_choice", "pointwise_true",  # in test_ensemble.py
        "pointwise_leading_yes", "pointwise_leading_no", "write_definition",  # and in test_definitions.py
        "passage_abstract", "passage_keywords", "passage_questions", "reworded_query",  # and in test_invariance.py
        "write_descriptions", "write_misleading", "write_hard_questions", "write_hard_negative",  # in test_text_pairs.py
        "rag_cited", "rag_enough", "rag_missing_question", "rag_missing_passage", "rag_select",  # in test_rag_rounds.py
        "rag_faithful", "rag_helps", "rag_states", "rag_statements",  # in test_judges.py
        "rag_nuggets", "rag_nugget_importance", "rag_nugget_support",
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
