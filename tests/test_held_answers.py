"""Whose passages hold a gold answer: people's, the annotator's, nobody's."""

from dataclasses import replace
from pathlib import Path

import pytest

from uar.annotation.judgement import Judgement
from uar.annotation.quality.held_answers import held_answers
from uar.collections import Query, open_collection
from uar.collections.answer_match import hold_answer


def judged(*labels: int) -> list[Judgement]:
    return [Judgement(f"d{n}", label, label, None, n) for n, label in enumerate(labels, start=1)]


def test_passages_are_counted_by_who_chose_them(folder: Path) -> None:
    small = open_collection(f"local:{folder}:train")
    texts = {d: small.corpus.text(small.corpus.row(d)) for d in ("d1", "d2", "d3", "d4")}
    asked = {"q1": Query("q1", "?", (texts["d1"], texts["d3"].upper())), "q2": Query("q2", "?", ("nowhere to be read",))}
    collection = replace(small, queries={**asked, "q3": Query("q3", "?")}, qrels={"q1": {"d1": 1, "d2": 1}, "q2": {"d4": 1}})
    found = held_answers(collection, {"q1": judged(1, 0, 1, 0), "q2": judged(0, 0, 0, 1), "q3": judged(1)})
    assert found == {
        "questions": 2,  # q3 has no gold answer
        "both": {"passages": 2, "hold_an_answer": 0.5},  # q1 d1, q2 d4
        "people_alone": {"passages": 1, "hold_an_answer": 0.0},  # q1 d2
        "annotator_alone": {"passages": 1, "hold_an_answer": 1.0},  # q1 d3
        "neither": {"passages": 4, "hold_an_answer": 0.0},
    }
    assert held_answers(collection, {"q3": judged(1)}) is None


@pytest.mark.parametrize(
    ("text", "gold", "held"),
    [
        ("Honey, made by bees.", ("the honey",), True),
        ("Honeycombs are wax.", ("honey",), False),
        ("Bees make mead.", ("honey", "Mead!"), True),
        ("Bees.", ("the",), False),  # nothing of it is left
    ],
)
def test_an_answer_is_held_word_by_word(text: str, gold: tuple[str, ...], held: bool) -> None:
    assert hold_answer([text], gold) == [held]
