"""What a reply says besides its thinking, and why it ended, in the words of many models and servers; what code reads it."""

from pathlib import Path

import pytest

from uar.annotation.annotators import Annotator, Pairwise, Pointwise
from uar.annotation.annotators.annotator import code_files
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_answer, check_text, outcome_of

LIST = "My selection:[[1],[3]]"
THOUGHT = "Passage [2] fits? No. My selection:[[2]]"
HARMONY = f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{LIST}"


@pytest.mark.parametrize(
    "output",
    [
        LIST,
        f"<think>\n{THOUGHT}\n</think>\n\n{LIST}",
        f"<think>\n\n</think>\n\n{LIST}",
        f"{THOUGHT}\n</think>\n{LIST}",  # the prompt opened it
        f"<thinking>{THOUGHT}</thinking>\n{LIST}",
        f"<thought>\n{THOUGHT}\n</thought>{LIST}",
        f"<seed:think>{THOUGHT}</seed:think>{LIST}",
        f"[THINK]{THOUGHT}[/THINK]{LIST}",
        f"{THOUGHT}[/THINK]\n{LIST}",
        f"◁think▷{THOUGHT}◁/think▷{LIST}",
        f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{LIST}<|END_RESPONSE|>",
        f"<|channel>thought\n{THOUGHT}<channel|>{LIST}",
        f"<think>{THOUGHT}</think><answer>{LIST}</answer>",
        f"<think>a</think> hm <think>{THOUGHT}</think>{LIST}",
        HARMONY,
        f"{HARMONY}<|return|>",
        f"<|channel|>final <|constrain|>json<|message|>{LIST}<|end|>",
        f"<|channel|>commentary<|message|>So far.<|end|><|start|>assistant{HARMONY}",
        f"analysis{THOUGHT}assistantfinal{LIST}",
    ],
)
def test_the_reply_is_what_stands_after_the_thinking(output: str) -> None:
    assert Reply(output).text == LIST


@pytest.mark.parametrize(
    "output",
    [
        f"<think>{THOUGHT}",
        f"<thinking>\n{THOUGHT}",
        f"<thought>{THOUGHT}",
        f"[THINK]{THOUGHT}",
        f"◁think▷{THOUGHT}",
        f"<|START_THINKING|>{THOUGHT}",
        f"<|channel>thought\n{THOUGHT}",
        f"<think>a</think><think>{THOUGHT}",
        f"<|channel|>analysis<|message|>{THOUGHT}",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant",
        f"analysis{THOUGHT}",
        f"<think>{THOUGHT}</think>",
    ],
)
def test_thinking_that_never_ends_is_no_reply(output: str) -> None:
    assert check_text(Reply(output)) == Outcome.EMPTY
    assert check_answer(Reply(output, Outcome.TRUNCATED)) == Outcome.TRUNCATED


@pytest.mark.parametrize(
    "text",
    ["I think <b>so</b>.", "[1] > [2]", "Analysis: the heart.", "analysis: none", "analysis of blood", "Use [think]."],
)
def test_a_text_without_thinking_is_the_reply(text: str) -> None:
    assert Reply(text).text == text


@pytest.mark.parametrize(
    ("outcome", "reasons"),
    [
        (
            Outcome.OK,
            ["stop", "STOP", "eos_token", "stop_sequence", "end_turn", "COMPLETE", {"type": "stop"}],
        ),
        (
            Outcome.TRUNCATED,
            ["length", "MAX_TOKENS", "FinishReason.MAX_TOKENS", "model_length", {"type": "length"}],
        ),
        (Outcome.REFUSED, ["content_filter", "SAFETY", "PROHIBITED_CONTENT", "refusal", "content_filter: RECITATION"]),
        (Outcome.ERROR, [None, "", "error", "abort", "ERROR", "tool_calls", "unknown", 3, {"type": "abort"}, {}]),
    ],
)
def test_the_reason_for_which_a_reply_ended_is_its_outcome(outcome: Outcome, reasons: list) -> None:
    assert [outcome_of(reason) for reason in reasons] == [outcome] * len(reasons)


@pytest.mark.parametrize(("text", "outcome"), [("Honey.", Outcome.OK), ("", Outcome.EMPTY), ("\n", Outcome.EMPTY)])
def test_a_free_answer_is_good_unless_empty(text: str, outcome: Outcome) -> None:
    assert check_text(Reply(text)) == outcome


@pytest.mark.parametrize("outcome", [Outcome.TRUNCATED, Outcome.ERROR, Outcome.REFUSED])
def test_a_failed_reply_is_no_answer_whatever_it_says(outcome: Outcome) -> None:
    assert check_text(Reply("some text", outcome)) == outcome


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        (Pairwise, {"pairwise", "picking", "scored", "bradley_terry", "replies", "refusals"}),
        (Pointwise, {"pointwise", "calibration", "scale", "reply_form", "parsing", "doubts", "listed_passages"}),
    ],
)
def test_labels_are_concluded_anew_where_any_code_that_makes_them_changed(kind: type[Annotator], files: set[str]) -> None:
    assert files <= {Path(file).stem for file in code_files(kind)}
