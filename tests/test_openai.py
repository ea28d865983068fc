"""Requests, replies and passing faults of the `openai` engine, against a scripted server."""

import json
import math
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from asking import ask
from llm_server import ODD_ANSWERS, LLMServer, gold_answers, words_with_logprobs
from openai_clients import BEES, HELLO, Connect, chats

from uar.collections import open_collection
from uar.errors import EngineError
from uar.llm.record import Choose, Generate, Outcome
from uar.llm.replies import check_choices

USEFUL = Choose((("user", "Is it useful? Yes or No."),), ("Yes", "No", "Maybe"))


def third(fault: str) -> Callable[[int, dict[str, Any]], str | None]:
    """A fault of the chat `number 3` alone."""
    return lambda number, body: fault if body["messages"][-1]["content"] == "number 3" else None


THIRD_FAILS = [Outcome.OK] * 3 + [Outcome.ERROR] + [Outcome.OK] * 2


def test_a_chat_is_sent_and_its_answer_read(server: LLMServer, client: Connect) -> None:
    server.answer = lambda messages: messages[-1]["content"].upper()
    replies = ask(client(), chats(20))
    assert [r.output for r in replies] == [f"NUMBER {n}" for n in range(20)]
    assert {(r.outcome, r.tokens_in, r.tokens_out, r.tokens_cached) for r in replies} == {(Outcome.OK, 7, 3, 2)}
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions" and headers["content-type"] == "application/json"
    assert body["messages"][0] == {"role": "system", "content": "Count."}
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("scripted", 5, 0.5)


@pytest.mark.parametrize(
    ("options", "request_", "sent"),
    [
        ({}, {}, {"max_tokens": 5, "temperature": 0.0}),
        ({}, {"sample": 4}, {"max_tokens": 5, "temperature": 0.0}),
        ({}, {"temperature": 0.7, "sample": 4}, {"max_tokens": 5, "temperature": 0.7, "seed": 4}),
        ({}, {"temperature": 0.7}, {"max_tokens": 5, "temperature": 0.7, "seed": 0}),
        (
            {},
            {"reasoning": True, "reasoning_tokens": 30},
            {"max_tokens": 35, "temperature": 0.0, "chat_template_kwargs": {"enable_thinking": True}},
        ),
        (
            {},
            {"reasoning": False, "reasoning_tokens": 30},
            {"max_tokens": 5, "temperature": 0.0, "chat_template_kwargs": {"enable_thinking": False}},
        ),
        ({}, {"pattern": "[ab]+"}, {"max_tokens": 5, "temperature": 0.0}),
        (
            {"constrain": True},
            {"pattern": "[ab]+"},
            {"max_tokens": 5, "temperature": 0.0, "structured_outputs": {"regex": "[ab]+"}},
        ),
        (
            {"constrain": True},
            {"pattern": "[ab]+", "reasoning": True},
            {"max_tokens": 5, "temperature": 0.0, "chat_template_kwargs": {"enable_thinking": True}},
        ),
        ({"constrain": True}, {}, {"max_tokens": 5, "temperature": 0.0}),
    ],
)
def test_only_what_a_request_says_is_sent(
    server: LLMServer, client: Connect, options: dict[str, Any], request_: dict[str, Any], sent: dict[str, Any]
) -> None:
    ask(client(**options), [Generate((("user", "Hi."),), 5, **request_)])
    same = {"model": "scripted", "messages": [{"role": "user", "content": "Hi."}], "top_p": 1}
    assert server.seen[0][2] == same | sent


def test_a_schema_holds_the_reply_inside_an_object(server: LLMServer, client: Connect) -> None:
    """As servers without vLLM's grammar take it; one that holds to no schema is read as it writes."""
    one = Generate((("user", "Choose."),), 20, pattern=r"My selection:\[\[[12]\]\]")
    replies = iter(['{"reply": "My selection:[[2]]"}', "My selection:[[1]]", '{"reply": 3}', '{"reply": "My sel', "[1]"])
    server.answer = lambda messages: next(replies)
    engine = client(constrain="json_schema", window=1)
    assert engine.holds(one) and not engine.holds(HELLO)
    (reply,) = ask(engine, [one])
    assert (reply.output, reply.outcome) == ("My selection:[[2]]", Outcome.OK)
    sent = server.seen[0][2]
    assert "structured_outputs" not in sent and sent["max_tokens"] == 20
    held = sent["response_format"]["json_schema"]
    assert sent["response_format"]["type"] == "json_schema" and held["strict"] is True
    assert held["schema"]["properties"] == {"reply": {"type": "string", "pattern": r"^(?:My selection:\[\[[12]\]\])$"}}
    assert held["schema"]["required"] == ["reply"] and held["schema"]["additionalProperties"] is False
    odd = [one for _ in range(4)]
    assert [r.output for r in ask(engine, odd)] == ["My selection:[[1]]", '{"reply": 3}', '{"reply": "My sel', "[1]"]
    with pytest.raises(EngineError, match="llm.constrain='regex'; allowed: false, true .vLLM., json_schema"):
        client(constrain="regex")


def test_a_server_is_sent_more_fields_or_others(server: LLMServer, client: Connect) -> None:
    extra = {"temperature": None, "reasoning_effort": "low"}
    engine = client(max_tokens_field="max_completion_tokens", extra=extra, window=1)
    ask(engine, [Generate((("user", "Hi."),), 5), BEES])
    chat, score = server.seen[0][2], server.seen[1][2]
    assert (chat["max_completion_tokens"], chat["reasoning_effort"]) == (5, "low")
    assert not {"temperature", "max_tokens"} & set(chat)
    assert (score["max_tokens"], score["reasoning_effort"]) == (1, "low")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("text", ["My selection:[[2]]", ""])
def test_thinking_is_kept_before_the_reply(server: LLMServer, client: Connect, name: str, text: str) -> None:
    server.answer, server.thinking, server.thinking_field = lambda messages: text, "Is it [1]? No.", name
    (reply,) = ask(client(), [HELLO])
    assert reply.output == f"<think>\nIs it [1]? No.\n</think>\n\n{text}"
    assert (reply.text, reply.outcome) == (text, Outcome.OK)


def test_the_target_alone_is_scored(server: LLMServer, client: Connect) -> None:
    (reply,) = ask(client(), [BEES])
    assert json.loads(reply.output) == {"logprob": -14.0, "tokens": 4}
    assert reply.mean_logprob() == -3.5
    path, _, body = server.seen[-1]
    assert path == "/v1/completions"
    assert body["prompt"] == BEES.prefix + BEES.target and body["echo"] is True


def test_the_servers_own_tokens_are_hand_computed() -> None:
    assert words_with_logprobs("Bees make") == [("Bees", 0, None), (" make", 4, -4.0)]


def test_choices_sum_over_their_spellings_and_an_unlisted_one_gets_the_lowest(server: LLMServer, client: Connect) -> None:
    listed = {"Yes": 0.5, " Yes": 0.125, "No": 0.25, "yes": 0.0625, "I": 0.03125}
    server.choose = lambda messages: {token: math.log(probability) for token, probability in listed.items()}
    (reply,) = ask(client(), [USEFUL])
    wanted = {"Yes": math.log(0.625), "No": math.log(0.25), "Maybe": math.log(0.03125)}
    assert reply.outcome == Outcome.OK and reply.choice_logprobs() == pytest.approx(wanted, abs=1e-6)
    assert reply.choice_mass() == pytest.approx(0.875)
    body = server.seen[0][2]
    assert (body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (1, 0, True, 20)
    assert "chat_template_kwargs" not in body


@pytest.mark.parametrize(("listed", "left"), [({"2": 0.9}, 0.1), ({"2": 0.9, "1": 0.02}, 0.02), ({"2": 1.0000001}, 1e-10)])
def test_unlisted_choices_have_at_most_what_the_listed_ones_leave(
    server: LLMServer, client: Connect, listed: dict[str, float], left: float
) -> None:
    server.choose = lambda messages: {token: math.log(probability) for token, probability in listed.items()}
    (reply,) = ask(client(), [Choose((("user", "How useful, from 0 to 3?"),), ("0", "1", "2", "3"))])
    found = reply.choice_logprobs()
    assert max(found, key=found.__getitem__) == "2" and reply.choice_mass() == pytest.approx(min(1, sum(listed.values())))
    assert [found[grade] for grade in ("0", "3")] == pytest.approx([math.log(left)] * 2, abs=1e-5)


def test_choices_of_which_none_is_listed_are_no_choice(server: LLMServer, client: Connect) -> None:
    server.choose = lambda messages: {"I": math.log(0.5), "The": math.log(0.25)}
    (reply,) = ask(client(), [USEFUL])
    assert reply.choice_mass() == 0 and check_choices(reply) == Outcome.UNPARSABLE


@pytest.mark.parametrize("fault", [None, "no logprobs"])
def test_a_server_without_log_likelihoods_of_replies_is_told_at_once(
    server: LLMServer, client: Connect, fault: str | None
) -> None:
    server.fault = lambda number, body: fault
    (reply,) = ask(client(), [USEFUL])
    assert reply.outcome == Outcome.ERROR and server.url in reply.output and "gives no log-likelihoods" in reply.output
    assert len(server.seen) == 1


PASSING = ["408", "409", "425", "429 without a time", "500", "503"]
COUNTS = '200 {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": %s}}'
UNREADABLE = [
    COUNTS % -1,
    COUNTS % 2**31,
    COUNTS % "NaN",
    "broken JSON",
    "not JSON",
    "no choices",
    "a list as content",
    "half a body",
]


@pytest.mark.parametrize("fault", [*PASSING, *UNREADABLE])
def test_a_passing_fault_is_tried_again(server: LLMServer, client: Connect, fault: str, no_wait: list[float]) -> None:
    server.fault = lambda number, body: fault if number < 3 else None
    replies = ask(client(), chats(6))
    assert [(r.output, r.outcome) for r in replies] == [("My selection:[]", Outcome.OK)] * 6
    assert len(server.seen) == 9 and len(no_wait) == 3


@pytest.mark.parametrize("fault", ["500", "broken JSON", "no choices", "half a body"])
def test_a_lasting_fault_is_an_error_of_its_call_alone(
    server: LLMServer, client: Connect, fault: str, no_wait: list[float]
) -> None:
    server.fault = third(fault)
    replies = ask(client(retries=2), chats(6))
    assert [r.outcome for r in replies] == THIRD_FAILS
    assert server.url in replies[3].output
    assert len([body for _, _, body in server.seen if body["messages"][-1]["content"] == "number 3"]) == 3


@pytest.mark.parametrize(("fault", "told"), [("400", "400 the prompt is too long"), ("301", "301 ")])
def test_another_status_is_final_for_its_call_only(server: LLMServer, client: Connect, fault: str, told: str) -> None:
    server.fault = third(fault)
    replies = ask(client(), chats(6))
    assert [r.outcome for r in replies] == THIRD_FAILS
    assert replies[3].output == told
    assert len(server.seen) == 6


@pytest.mark.parametrize("fault", ["429", "429 without a time"])
def test_a_steady_quota_fails_no_call(server: LLMServer, client: Connect, fault: str, no_wait: list[float]) -> None:
    server.fault = lambda number, body: None if number % 8 == 7 else fault
    replies = ask(client(retries=7, window=16), chats(24))
    assert [r.outcome for r in replies] == [Outcome.OK] * 24
    assert len(server.seen) == 8 * 24


def test_a_limit_that_lets_nothing_through_is_an_error(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "429"
    replies = ask(client(retries=2), chats(6))
    assert [r.outcome for r in replies] == [Outcome.ERROR] * 6 and len(server.seen) == 18


def test_retry_after_is_obeyed(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "429" if number < 2 else None
    (reply,) = ask(client(), [HELLO])
    assert reply.outcome == Outcome.OK
    assert no_wait == pytest.approx([17.0, 17.0], abs=2)


def test_retry_after_as_a_date_is_obeyed(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    after = formatdate(time.time() + 500, usegmt=True)
    server.fault = lambda number, body: f"429 after {after}" if number == 0 else None
    (reply,) = ask(client(), [HELLO])
    assert reply.outcome == Outcome.OK
    assert no_wait == pytest.approx([500], abs=60)


@pytest.mark.parametrize("after", ["soon", "-5", "nan", "inf", "0", "", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_leaves_the_wait_of_a_limited_rate(
    server: LLMServer, client: Connect, no_wait: list[float], after: str
) -> None:
    server.fault = lambda number, body: f"429 after {after}" if number == 0 else None
    (reply,) = ask(client(backoff=1.0), [HELLO])
    assert reply.outcome == Outcome.OK
    assert len(no_wait) == 1 and 7.5 <= no_wait[0] <= 12


def test_calls_that_follow_keep_away_as_long_as_the_server_asks(
    server: LLMServer, client: Connect, no_wait: list[float]
) -> None:
    server.fault = lambda number, body: "429" if number == 0 else None
    engine = client(retries=0)
    assert [r.outcome for r in ask(engine, [HELLO]) + ask(engine, [HELLO])] == [Outcome.ERROR, Outcome.OK]
    assert no_wait == pytest.approx([17.0], abs=2)


def test_nobody_waits_for_days(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "429 after 86400"
    (reply,) = ask(client(), [HELLO])
    assert reply.outcome == Outcome.ERROR and "takes no calls for 86" in reply.output
    assert len(server.seen) == 1 and not no_wait


def test_waits_grow_exponentially(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "500"
    (reply,) = ask(client(backoff=1.0, retries=4), [HELLO])
    assert reply.output == f"{server.url} answered 500 it broke"
    assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(no_wait))
    assert len(no_wait) == 4


def test_a_slow_answer_is_waited_for_and_one_too_slow_is_tried_again(server: LLMServer, client: Connect) -> None:
    server.delay = 0.3
    (reply,) = ask(client(timeout=30), [HELLO])
    assert reply.outcome == Outcome.OK and reply.seconds > 0
    server.delay = 3.0

    def quicken(number: int, body: dict[str, Any]) -> None:
        server.delay = 0.0

    server.fault = quicken
    (reply,) = ask(client(timeout=1.5), [HELLO])
    assert reply.outcome == Outcome.OK
    assert len(server.seen) == 3


@pytest.mark.parametrize("slow", ["at once", "drip"])
def test_a_call_that_takes_too_long_fails_alone(server: LLMServer, client: Connect, slow: str) -> None:
    """However steadily its bytes come."""
    if slow == "drip":
        server.fault = lambda number, body: "slow drip"
    else:
        server.delay = 3.0
    (reply,) = ask(client(timeout=0.3, retries=1), [HELLO])
    assert reply.outcome == Outcome.ERROR and "time-out" in reply.output
    assert len(server.seen) == 2


def test_calls_that_queue_for_their_turn_do_not_time_out(server: LLMServer, client: Connect) -> None:
    server.delay = 0.4
    replies = ask(client(window=1, timeout=2.0, retries=0), chats(6))
    assert [r.outcome for r in replies] == [Outcome.OK] * 6
    assert server.most_flying == 1


def test_calls_are_in_flight_together_up_to_the_window(server: LLMServer, client: Connect) -> None:
    server.crowd, server.delay = 4, 0.2  # time for one too many
    ask(client(window=4), chats(12))
    assert server.most_flying == 4


@pytest.mark.parametrize("name", list(ODD_ANSWERS))
def test_odd_answers_are_passed_on_as_they_are(server: LLMServer, client: Connect, name: str) -> None:
    server.fault = lambda number, body: name
    (reply,) = ask(client(), [HELLO])
    assert (reply.output, reply.outcome) == (ODD_ANSWERS[name], Outcome.OK)


@pytest.mark.parametrize(
    ("fault", "output", "outcome"),
    [
        ("null content", "", Outcome.OK),
        ("refusal", "No.", Outcome.REFUSED),
        ("half a character", "?!", Outcome.OK),
    ],
)
def test_answers_that_are_no_plain_text_are_read(
    server: LLMServer, client: Connect, fault: str, output: str, outcome: Outcome
) -> None:
    server.fault = lambda number, body: fault
    (reply,) = ask(client(), [HELLO])
    assert (reply.output, reply.outcome) == (output, outcome)


def test_gold_answers_read_both_layouts() -> None:
    mini = open_collection("mini:train")
    query = next(q for q in mini.queries.values() if {1, 2} <= set(mini.qrels[q.id].values()))
    other = next(d for d in mini.corpus.ids() if d not in mini.qrels[query.id])
    by_grade = {grade: next(d for d, g in mini.qrels[query.id].items() if g == grade) for grade in (1, 2)}
    texts = {d: mini.corpus.text(mini.corpus.row(d)) for d in (other, by_grade[1], by_grade[2])}
    passages = [f"[{n}] {' '.join(text.split())}" for n, text in enumerate(texts.values(), start=1)]
    answer = gold_answers(mini)
    select = f"Question: {query.text}\nReply in this form: My selection:[[i],[j],...]"
    useful = f"Question: {query.text}\nReference answer: a > b\nReply in this form: My selection:[[i],[j],...]"
    rank = f"Question: {query.text}\nReference answer: a\nRank them in this form: [i] > [j] > ..."
    some = "Consider only the passages [1], [3], which are on the topic. Rank them."
    tasks = {
        select: "My selection:[[2],[3]]",
        useful: "My selection:[[3]]",
        rank: "[3] > [2] > [1]",
        f"{rank}\n{some}": "[3] > [1]",
    }
    for task, wanted in tasks.items():
        one_turn = [{"role": "user", "content": "\n".join(["Here are passages:", *passages, task])}]
        turns = [{"role": "user", "content": passage} for passage in passages] + [{"role": "user", "content": task}]
        assert answer(one_turn) == answer(turns) == wanted
    assert answer([{"role": "user", "content": f"Answer.\nQuestion: {query.text}"}]) == f"It is {query.answers[0]}."
