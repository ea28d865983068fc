"""Replies that begin with thoughts, samples, and refusals that a server names."""

from pathlib import Path

import pytest
from scripted import Scripted, graded, kept, replies, run, stage_of

from uar.annotation.annotators import (
    RelSel,
    UtilSel,
)
from uar.llm.record import Outcome, Reply

UTILSEL = UtilSel(template="utilsel")
CHAIN = {"relsel": "My selection:[[2],[1],[4]]", "pseudo_answer": "They make honey."}
THOUGHT = "<think>Passage [3] is off, [2] may be.\nMy selection:[[2]]</think>\n\n"


@pytest.mark.parametrize("opening", ["<think>", ""], ids=["marked", "begun by the chat template"])
def test_thinking_is_kept_and_not_read(tmp_path: Path, opening: str) -> None:
    thought = opening + THOUGHT.removeprefix("<think>")
    texts = {"relsel": "My selection:[[1],[4]]", "pseudo_answer": "They make honey.", "utilsel": "My selection:[[1]]"}
    engine = Scripted(lambda r: thought + texts[stage_of(r)])
    judged, _ = run(tmp_path, UtilSel(template="utilsel", reasoning=True, reasoning_tokens=500), engine)
    assert graded(judged) == [("d1", 1, 2), ("d4", 0, 1), ("d2", 0, 0), ("d3", 0, 0)]
    assert {(r.reasoning, r.reasoning_tokens) for r in engine.asked} == {(True, 500)}
    assert "Reference answer: They make honey.\n" in engine.asked[-1].messages[-1][1]
    assert {r.output for r in kept(tmp_path, *UTILSEL.stages)} == {thought + text for text in texts.values()}


@pytest.mark.parametrize("stage", ["relsel", "pseudo_answer", "utilsel"])
@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply("<think>The passages [1] and [2] are"), Outcome.EMPTY),
        (Reply("<think>The passages [1] and [2] are", Outcome.TRUNCATED), Outcome.TRUNCATED),
        (Reply("<think>All said.</think>\n"), Outcome.EMPTY),
    ],
)
def test_a_thought_without_an_answer_is_a_failure(tmp_path: Path, stage: str, reply: Reply, outcome: Outcome) -> None:
    engine = Scripted(replies(**(CHAIN | {"utilsel": "My selection:[[1]]"} | {stage: reply})))
    judged, chains = run(tmp_path, UtilSel(template="utilsel", reasoning=True), engine)
    assert judged == {}
    assert [(f.stage, f.outcome, f.output) for f in chains.progress.failures] == [(stage, outcome, reply.output)]


def test_thinking_or_not_are_different_calls(tmp_path: Path) -> None:
    for reasoning in (None, False, True):
        engine = Scripted(replies(relsel="My selection:[]"))
        run(tmp_path, RelSel(template="relsel", reasoning=reasoning), engine)
        assert [(r.reasoning, r.reasoning_tokens) for r in engine.asked] == [(reasoning, 2_048 if reasoning else 0)]


def test_a_sample_at_a_temperature_is_a_call_of_its_own(tmp_path: Path) -> None:
    for options in ({}, {"temperature": 0.7}, {"temperature": 0.7, "sample": 1}, {"temperature": 0.7, "sample": 2}):
        engine = Scripted(replies(relsel="My selection:[]"))
        run(tmp_path, RelSel(template="relsel", **options), engine)
        assert [(r.temperature, r.sample) for r in engine.asked] == [(options.get("temperature", 0), options.get("sample", 0))]


def test_a_refusal_that_the_server_named_is_one_in_a_replay_too(tmp_path: Path) -> None:
    refusing = Scripted(replies(relsel="My selection:[[1]]", pseudo_answer=Reply("No.", Outcome.REFUSED)))
    assert run(tmp_path, UTILSEL, refusing)[0] == {}
    again = Scripted(replies(utilsel="My selection:[[1]]"))
    judged, chains = run(tmp_path, UTILSEL, again)
    assert (judged, again.asked) == ({}, [])
    assert [f.outcome for f in chains.progress.failures] == [Outcome.REFUSED]
