"""The `openai` engine: replies that ended otherwise, errors inside an answer of status 200, limited rates, proxies."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import ask
from llm_server import LLMServer, serve
from openai_clients import BEES, HELLO, Connect, chats

from uar.llm.record import Choose, Outcome, Record, Request
from uar.llm.store.answers import answer
from uar.llm.store.store import Store

USEFUL = Choose((("user", "Is it useful? Yes or No."),), ("Yes", "No"))


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("stop", Outcome.OK),
        ("eos_token", Outcome.OK),
        ("length", Outcome.TRUNCATED),
        ("MAX_TOKENS", Outcome.TRUNCATED),
        ("content_filter", Outcome.REFUSED),
        ("SAFETY", Outcome.REFUSED),
    ],
)
def test_a_reply_is_called_by_the_reason_for_which_it_ended(
    server: LLMServer, client: Connect, reason: str, outcome: Outcome
) -> None:
    server.finish_reason = reason
    (reply,) = ask(client(), [HELLO])
    assert (reply.outcome, reply.output) == (outcome, "My selection:[]") and len(server.seen) == 1


@pytest.mark.parametrize("request_", [HELLO, BEES, USEFUL], ids=["generate", "score", "choose"])
@pytest.mark.parametrize("reason", ["error", "abort", "tool_calls", None])
def test_a_reply_that_may_not_be_whole_is_asked_for_again_and_never_good(
    server: LLMServer, client: Connect, no_wait: list[float], reason: Any, request_: Request
) -> None:
    server.choose = lambda messages: {"Yes": -0.1, "No": -3.0}
    server.finish_reason = reason
    (reply,) = ask(client(retries=2), [request_])
    assert reply.outcome == Outcome.ERROR and reply.output == f"{server.url} ended a reply for {json.dumps(reason)}"
    assert len(server.seen) == 3

    def mend(number: int, body: dict[str, Any]) -> None:
        server.finish_reason = reason if number == 3 else "stop"

    server.fault = mend
    (reply,) = ask(client(), [request_])
    assert reply.outcome == Outcome.OK and len(server.seen) == 5


def test_what_is_of_no_use_has_cost_its_tokens(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.finish_reason = "abort"
    (reply,) = ask(client(retries=2), [HELLO])
    assert (reply.tokens_in, reply.tokens_out, reply.tokens_cached) == (21, 9, 6)  # of three answers
    server.finish_reason = "stop"
    (reply,) = ask(client(), [USEFUL])  # without log-likelihoods
    assert (reply.outcome, reply.tokens_in, reply.tokens_out) == (Outcome.ERROR, 7, 3)


def test_a_cut_reply_whose_tokens_nobody_counted_is_a_cut_one_in_the_store_too(
    server: LLMServer, client: Connect, tmp_path: Path
) -> None:
    server.fault = lambda number, body: '200 {"choices": [{"message": {"content": "Wax is"}, "finish_reason": "length"}]}'
    (reply,) = ask(client(), [HELLO])
    about = ("toy.train", "q1", (), "answer", "answer", "", "", "toy@1", "openai")
    kept = Record(HELLO.key_of("toy@1", reply.outcome), *about, reply.output, Outcome.OK, tokens_out=reply.tokens_out)
    store = Store(tmp_path)
    store.append(kept)
    found = answer(store, HELLO, "toy@1", lambda record: Outcome.OK)
    assert found is not None and found.reply().outcome == reply.outcome == Outcome.TRUNCATED
    assert (reply.tokens_in, reply.tokens_out) == (0, HELLO.max_tokens)


def test_a_score_that_a_filter_stopped_is_refused(server: LLMServer, client: Connect) -> None:
    engine = client()
    assert [r.outcome for r in ask(engine, [BEES])] == [Outcome.OK]
    server.finish_reason = "content_filter"
    assert [r.outcome for r in ask(engine, [replace(BEES, target=" what is wax"), USEFUL])] == [Outcome.REFUSED] * 2


def test_an_answer_without_a_reason_is_not_taken_for_whole(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: '200 {"choices": [{"message": {"content": "My selection:[[1]]"}}]}'
    (reply,) = ask(client(retries=1), [HELLO])
    assert reply.outcome == Outcome.ERROR and "null" in reply.output


INSIDE = {
    '{"error": {"message": "the engine is overloaded", "code": 503}}': "answered 503 (in an answer of status 200) the",
    '{"error": {"message": "it broke", "type": "server_error"}}': "answered 500 (in an answer of status 200) it broke",
    '{"error": "out of memory"}': "answered 500 (in an answer of status 200) out of memory",
    '[{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}]': "(in an answer of status 200) busy",
    '{"object": "error", "message": "it broke", "type": "InternalServerError"}': "it broke",
    '{"choices": [{"error": {"code": 502, "message": "gone"}, "message": {}, "finish_reason": "stop"}]}': "gone",
    '{"error": {"surprise": 1}}': '{"surprise": 1}',
}


@pytest.mark.parametrize("body", INSIDE)
def test_an_error_inside_an_answer_of_status_200_is_the_servers_error(
    server: LLMServer, client: Connect, no_wait: list[float], body: str
) -> None:
    server.fault = lambda number, _: f"200 {body}" if number < 2 else None
    (reply,) = ask(client(), [HELLO])
    assert (reply.outcome, len(server.seen), len(no_wait)) == (Outcome.OK, 3, 2)
    server.fault = lambda number, _: f"200 {body}"
    (reply,) = ask(client(retries=1), [HELLO])
    assert reply.outcome == Outcome.ERROR and INSIDE[body] in reply.output and "KeyError" not in reply.output


@pytest.mark.parametrize(
    "error", [{"code": 400, "message": "too long"}, {"code": "context_length_exceeded", "message": "too long"}]
)
def test_an_error_inside_that_would_come_again_is_final(server: LLMServer, client: Connect, error: dict[str, Any]) -> None:
    server.fault = lambda number, body: f"200 {json.dumps({'error': error})}"
    (reply,) = ask(client(), [HELLO])
    assert reply.outcome == Outcome.ERROR and reply.output.endswith("too long") and len(server.seen) == 1


LIMITS = [
    "429 without a time",
    '200 {"error": {"code": 429, "message": "slow down"}}',
    '200 {"error": {"type": "rate_limit_error", "message": "slow down"}}',
    '200 [{"error": {"status": "RESOURCE_EXHAUSTED", "message": "slow down"}}]',
    '200 {"error": "Rate limit exceeded"}',
]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_of_a_minute_is_waited_out_where_no_time_is_told(
    server: LLMServer, client: Connect, no_wait: list[float], limit: str
) -> None:
    server.fault = lambda number, body: limit if number < 5 else None
    (reply,) = ask(client(backoff=0.5), [HELLO])
    assert reply.outcome == Outcome.OK
    assert len(no_wait) == 5 and sum(no_wait) > 100 and max(no_wait) <= 90


def test_calls_keep_away_from_a_limited_server_meanwhile(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "429 without a time" if number == 0 else None
    with serve() as second:
        engine = client(base_urls=[server.url, second.url], window=1, backoff=5.0)
        assert [r.outcome for r in ask(engine, chats(9))] == [Outcome.OK] * 9
        assert (len(server.seen), len(second.seen), no_wait) == (1, 9, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_asked_past_a_proxy(
    server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    engine = client(base_urls=[server.url.replace("127.0.0.1", host)], retries=0)
    assert ask(engine, [HELLO])[0].outcome == Outcome.OK


def test_others_are_asked_through_the_proxy(server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    assert ask(client(base_urls=["http://llm.example:8000/v1"], retries=0), [HELLO])[0].outcome == Outcome.OK
    assert len(server.seen) == 1
