"""Judges of answers: values by hand on answers made by hand, and replies that are read or named."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Scripted, run

from uar.errors import UserError
from uar.evaluation.rag.cited_text import cited_sentences, without_citations
from uar.evaluation.rag.judge_agreement import agreement
from uar.evaluation.rag.judges.citations import Citations
from uar.evaluation.rag.judges.context_precision import ContextPrecision
from uar.evaluation.rag.judges.faithfulness import Faithfulness
from uar.evaluation.rag.judges.judge import AnsweredQuestion, Judge
from uar.evaluation.rag.judges.nuggets import Nuggets, scores
from uar.evaluation.rag.judging import Judging
from uar.evaluation.rag.structured_replies import read_labels, read_list, read_yes_no
from uar.llm.record import Outcome, Reply, Request

PASSAGES = {"d1": "Bees make honey.", "d2": "Hives are of wood.", "d3": "Bees make honey, and hives are of wood."}
FACTS = ("bees make honey", "hives are of wood", "ants are small")


def judged(
    folder: Path, judge: Judge, answer: str, reply: Callable[[Request], str], **more: Any
) -> tuple[Mapping[str, float] | None, Scripted]:
    """Values of a judge, None where the question failed."""
    engine = Scripted(reply)
    question = AnsweredQuestion(
        "q1", "what about bees", {**PASSAGES}, answer=answer, ranked=("d1", "d2", "d3"), **{"positives": PASSAGES, **more}
    )
    found, _ = run(folder, judge, engine, [question], max_failure_rate=1.0)
    return (found["q1"].values if "q1" in found else None), engine


def text_of(request: Request) -> str:
    return request.messages[-1][1].lower()


def states(request: Request) -> str:
    """Yes where all facts of the sentence are in the passages that are shown."""
    shown, sentence = text_of(request).split('the question "what about bees": ')
    said = [fact for fact in FACTS if fact in sentence.splitlines()[0]]
    return "Yes." if said and all(fact in shown for fact in said) else "No."


@pytest.mark.parametrize(
    ("answer", "recall", "precision", "calls"),
    [
        ("Bees make honey [1].", 1, 1, 1),
        ("Bees make honey [2].", 0, 0, 1),
        ("Bees make honey. [1] Hives are of wood [2].", 1, 1, 2),
        # both together state it, and neither does alone, which is what the other would be without it: 1 + 2
        ("Bees make honey and hives are of wood [1][2].", 1, 1, 3),
        # [2] does not state it alone, and [1] does without it: spare
        ("Bees make honey [1, 2].", 1, 1 / 2, 3),
        # [3] states it alone, so does [1]: neither is spare
        ("Bees make honey [1][3].", 1, 1, 3),
        # of three, [1] and [2] are spare beside [3]
        ("Bees make honey and hives are of wood [1-3].", 1, 1 / 3, 6),
        # of three sentences one is stated; of three citations one is right
        ("Bees make honey [1]. Ants are small [1][2]. Hives are of wood.", 1 / 3, 1 / 3, 2),
        ("Bees make honey.", 0, 0, 0),
        # no passage 7: nothing is asked, both citations are wrong
        ("Bees make honey [1][7]. Hives are of wood [2].", 1 / 2, 1 / 3, 1),
        ("Bees make honey [1-7]. Hives are of wood [2].", 1 / 2, 1 / 2, 1),
        ("Bees make honey [3-1]. Hives are of wood [2].", 1 / 2, 1 / 2, 1),
    ],
)
def test_citations_by_hand(tmp_path: Path, answer: str, recall: float, precision: float, calls: int):
    found, engine = judged(tmp_path, Citations(template="rag_states"), answer, states)
    assert found == pytest.approx({"CitationRecall": recall, "CitationPrecision": precision})
    assert len(engine.asked) == calls


@pytest.mark.parametrize(
    "judge", [Citations(template="rag_states"), Faithfulness(template="rag_faithful"), ContextPrecision(template="rag_helps")]
)
def test_of_an_answer_of_nothing_nothing_is_said(tmp_path: Path, judge: Judge):
    found, engine = judged(tmp_path, judge, "", lambda request: "yes")
    assert found == {} and not engine.asked


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A is b [1]. C is d.[2][3] E.", [("A is b.", [1]), ("C is d.", [2, 3]), ("E.", [])]),
        ("In 2012 it fell [ 2 , 4–6 ][2].", [("In 2012 it fell.", [2, 4, 5, 6])]),
        ("A range that ends [3-1]. One past all [1-999][2].", [("A range that ends.", [0]), ("One past all.", [0, 2])]),
        ("Not [a] one, nor [2024].", [("Not [a] one, nor [2024].", [])]),
        ("[1]", []),
        ("A is b [1 and 2]. C is d [1, 3 & 4].", [("A is b.", [1, 2]), ("C is d.", [1, 3, 4])]),
        ("蜜蜂酿蜜【1】。它们住在蜂箱里。【2、3】", [("蜜蜂酿蜜。", [1]), ("它们住在蜂箱里。", [2, 3])]),
    ],
)
def test_sentences_and_what_they_cite(text: str, sentences: list):
    assert cited_sentences(text, 9) == sentences


def test_gold_answers_are_compared_without_citations():
    assert without_citations("The Black Sea [1][2].") == "The Black Sea."
    assert without_citations("honey [1, 3]") == without_citations("honey [1 and 3]") == "honey"
    assert without_citations("蜂蜜【1】") == "蜂蜜"


def test_what_judges_otherwise_says_so() -> None:
    plain = Nuggets(template="rag_nugget_support")
    assert "=" not in plain.definition
    shown = Nuggets(template="rag_nugget_support", source="shown", most=5, max_words=100)
    assert shown.definition == f"{plain.definition}, max_words=100, source=shown, most=5"
    assert Faithfulness(template="rag_faithful", constrain=False).definition.endswith("), constrain=False")


def faithful(statements: str, verdicts: str) -> Callable[[Request], str]:
    return lambda request: statements if "one statement a line" in text_of(request) else verdicts


@pytest.mark.parametrize(
    ("statements", "verdicts", "value"),
    [
        ("- bees make honey\n- ants are small", "1: yes\n2: no", {"Faithfulness": 0.5}),
        ("Here they are:\n1. bees make honey", "yes", {"Faithfulness": 1.0}),
        ("- a\n- b\n- c", "1. Yes\n2. **no**\n3: no (it says nothing of it)", {"Faithfulness": pytest.approx(1 / 3)}),
        ("none", "", {}),
        ("I am not sure what you want.", "", None),
        ("- a\n- b", "1: yes", None),  # a verdict is missing
        ("- a\n- b", "1: yes\n2: maybe", None),
        ("- a\n- b", "1: yes\n2: no\n2: yes", None),
        ("- a", "yes, but no", None),
        ("", "", None),
    ],
)
def test_faithfulness_by_hand(tmp_path: Path, statements: str, verdicts: str, value: Any):
    found, engine = judged(tmp_path, Faithfulness(template="rag_faithful"), "An answer.", faithful(statements, verdicts))
    assert found == value
    assert all(text in engine.asked[-1].messages[-1][1] for text in PASSAGES.values()) or len(engine.asked) == 1


def test_statements_beside_no_passages_are_unfaithful_and_not_asked_about(tmp_path: Path):
    engine = Scripted(faithful("- bees make honey", "yes"))
    found, _ = run(tmp_path, Faithfulness(template="rag_faithful"), engine, [AnsweredQuestion("q", "what", {}, answer="a")])
    assert found["q"].values == {"Faithfulness": 0.0} and len(engine.asked) == 1


@pytest.mark.parametrize(
    ("helps", "value"),
    [
        ("yyy", 1.0), ("yny", (1 + 2 / 3) / 2), ("nny", 1 / 3), ("nnn", 0.0), ("y?y", None),
    ],
)  # fmt: skip
def test_context_precision_by_hand(tmp_path: Path, helps: str, value: float | None):
    said = dict(zip(PASSAGES.values(), helps, strict=True))

    def reply(request: Request) -> str:
        passage = request.messages[-1][1].split("Passage: ")[1].splitlines()[0]
        return {"y": "yes", "n": "no", "?": "That depends."}[said[passage]]

    found, _ = judged(tmp_path, ContextPrecision(template="rag_helps"), "honey", reply)
    assert found == (None if value is None else {"ContextPrecision": pytest.approx(value)})


NUGGETS = [("vital", "support"), ("vital", "partial_support"), ("vital", "not_support"), ("okay", "support")]


def test_the_measures_of_nuggets_by_hand():
    assert scores(NUGGETS) == pytest.approx(
        {
            "NuggetsStrictVital": 1 / 3,
            "NuggetsVital": (1 + 0.5) / 3,
            "NuggetsStrictAll": 2 / 4,
            "NuggetsAll": 2.5 / 4,
        }
    )
    assert scores(NUGGETS[3:]) == {"NuggetsStrictAll": 1.0, "NuggetsAll": 1.0} and scores([]) == {}


def nuggetizer(request: Request) -> str:
    """Lists what stands before, and the facts of the passages; those of bees are vital; an answer supports what it says."""
    text = text_of(request)
    numbered = [line.split(": ")[1] for line in text.splitlines() if line.startswith("nugget ")]
    if "one fact a line" in text:
        before = [line[2:] for line in text.splitlines() if line.startswith("- ")]
        passages = " ".join(line for line in text.splitlines() if line.startswith("passage"))
        listed = list(dict.fromkeys([*before, *(fact for fact in FACTS if fact in passages)]))
        return "\n".join(f"- {fact}" for fact in listed)
    if "vital, if" in text:
        return "\n".join(f"{n}: {'vital' if 'bees' in nugget else 'okay'}" for n, nugget in enumerate(numbered, start=1))
    answer = text.split("answer: ")[1].splitlines()[0]
    labels = [
        "support" if nugget in answer else "partial_support" if nugget[:4] in answer else "not_support" for nugget in numbered
    ]
    return "\n".join(f"{n}: {label.replace('_', ' ')}" for n, label in enumerate(labels, start=1))


@pytest.mark.parametrize("window", [1, 10])
def test_nuggets_from_passages_to_values(tmp_path: Path, window: int):
    judge = Nuggets(template="rag_nugget_support", window=window, batch=1)
    found, engine = judged(tmp_path, judge, "Bees make honey; a hive is round, and hive is wood.", nuggetizer)
    assert found == {"NuggetsStrictVital": 1.0, "NuggetsVital": 1.0, "NuggetsStrictAll": 0.5, "NuggetsAll": 0.75}
    assert len(engine.asked) == (3 if window == 1 else 1) + 2 + 2
    nothing, again = judged(tmp_path, judge, "", nuggetizer)
    assert set(nothing.values()) == {0.0} and not again.asked, "nothing is supported, and the nuggets are in the store"


def test_nuggets_come_from_what_is_asked_for(tmp_path: Path):
    shown = Nuggets(template="rag_nugget_support", source="shown", passages=1)
    found, engine = judged(tmp_path, shown, "Bees make honey.", nuggetizer, positives={})
    assert found["NuggetsStrictAll"] == 1.0 and "wood" not in text_of(engine.asked[0])
    assert shown.needs_passages and not Nuggets(template="rag_nugget_support").needs_passages
    assert judged(tmp_path, Nuggets(template="rag_nugget_support"), "a", nuggetizer, positives={})[0] == {}
    with pytest.raises(UserError, match=r"rag\.judges\.nuggets\.source='qrels'; allowed: positives, shown"):
        Nuggets(template="rag_nugget_support", source="qrels")
    with pytest.raises(UserError, match=r"rag\.judges\.nuggets\.window=0: a whole number"):
        Nuggets(template="rag_nugget_support", window=0)


def test_nuggets_of_other_passages_are_judged_otherwise():
    def how(source: str, *ranked: str, passages: int = 2, answer: str = "Bees.") -> str:
        judge = Nuggets(template="rag_nugget_support", source=source, passages=passages)
        question = AnsweredQuestion("q1", "bees", PASSAGES, answer=answer, ranked=ranked, positives={ranked[0]: "Bees."})
        collection, progress = SimpleNamespace(slug="toy.test"), SimpleNamespace(failures=[])
        asking = SimpleNamespace(of=lambda *_: {}, llm=SimpleNamespace(name="m"), collection=collection, progress=progress)
        judging = Judging({"nuggets": judge}, ["NuggetsAll"])
        judging.judge(asking, "retrieved", {"q1": question})  # type: ignore[arg-type]
        return judging.definitions["NuggetsAll"]

    assert how("positives", "d1") == how("positives", "d2")
    assert how("shown", "d1", "d2") == how("shown", "d1", "d2", "d3", answer="Wood.")
    assert len({how("shown", "d1", "d2"), how("shown", "d2", "d1"), how("shown", "d1", "d3"), how("positives", "d1")}) == 4


@pytest.mark.parametrize("broken", ["one fact a line", "vital, if", "partial_support, if"])
def test_a_step_of_nuggets_that_fails_leaves_no_value(tmp_path: Path, broken: str):
    found, _ = judged(
        tmp_path, Nuggets(template="rag_nugget_support"), "Bees.", lambda r: "hm" if broken in text_of(r) else nuggetizer(r)
    )
    assert found is None


@pytest.mark.parametrize(
    ("text", "outcome", "yes"),
    [
        ("yes", Outcome.OK, True), ("**No**, it is not.", Outcome.OK, False), ("Yes\nno more", Outcome.OK, True),
        ("yes and no", Outcome.UNPARSABLE, False), ("It does.", Outcome.UNPARSABLE, False), ("", Outcome.EMPTY, False),
        ("noteworthy", Outcome.UNPARSABLE, False),
    ],
)  # fmt: skip
def test_yes_and_no(text: str, outcome: Outcome, yes: bool):
    assert read_yes_no(Reply(text)) == (outcome, yes)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("- a b\n- c\n\nThat is all.", ["a b", "c"]), ("1) a\nthat goes on\n2) b", ["a that goes on", "b"]), ("None.", []),
        ("- None", []), ("1. none.", []), ("• a\n• a", ["a"]), ("a and b", None), ("-5 degrees", None),
    ],
)  # fmt: skip
def test_lists(text: str, items: list[str] | None):
    assert read_list(Reply(text)) == ((Outcome.UNPARSABLE, []) if items is None else (Outcome.OK, items))
    assert read_list(Reply(text, Outcome.TRUNCATED)) == (Outcome.TRUNCATED, [])


@pytest.mark.parametrize(
    ("text", "number", "labels"),
    [
        ("1: vital\n2: okay", 2, ["vital", "okay"]), ("Nugget 2: okay\nNugget 1: vital", 2, ["vital", "okay"]),
        ("[1] Vital - it is asked for\n[2] okay", 2, ["vital", "okay"]), ("```\n1. vital\n```", 1, ["vital"]),
        ("Vital", 1, ["vital"]), ("1: vital (not okay)", 1, None), ("1: vital\n3: okay", 2, "range"), ("1: vital", 2, None),
        ("vital\nokay", 2, None), ("1: vitally", 1, None),
    ],
)  # fmt: skip
def test_labels(text: str, number: int, labels: Any):
    expected = Outcome.OUT_OF_RANGE if labels == "range" else Outcome.UNPARSABLE
    assert read_labels(Reply(text), number, ("vital", "okay")) == (
        (Outcome.OK, labels) if isinstance(labels, list) else (expected, [])
    )


def test_agreement_over_questions_by_hand():
    judge = {"Faithfulness": {"a": 0.0, "b": 0.5, "c": 1.0, "d": 1.0}, "NuggetsAll": {"a": 1.0, "b": 1.0, "c": 1.0}}
    gold = {"EM": {"a": 0.0, "b": 0.0, "c": 1.0, "e": 1.0}}
    found = agreement(judge, gold)
    # x - mean = -0.5, 0, 0.5; y - mean = -1/3, -1/3, 2/3: r = 0.5 / sqrt(0.5 * 2/3); tau b: 2 of 3 pairs agree, 1 is tied
    assert found["Faithfulness"]["EM"] == pytest.approx({"questions": 3, "correlation": 0.75**0.5, "tau": 2 / 6**0.5})
    assert found["NuggetsAll"]["EM"] == {"questions": 3, "correlation": None, "tau": None}
    assert agreement({"A": {"a": 1.0, "b": 0.0}}, gold)["A"]["EM"] == {"questions": 2, "correlation": None, "tau": None}
