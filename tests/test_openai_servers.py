"""The `openai` engine and its servers: several, gone, mute, asking for a pause, telling what they take; and keys."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from asking import ask
from llm_server import LLMServer, serve
from openai_clients import BEES, HELLO, Connect, bare, chats, nobody
from starlette.responses import RedirectResponse

from uar.errors import EngineError
from uar.llm.models.openai import OpenAI
from uar.llm.record import Outcome

KEY = "sk-planted-7391"


def test_several_servers_share_the_work_and_one_may_be_down(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    with serve() as second, nobody() as gone:
        replies = ask(client(base_urls=[server.url, gone, second.url], retries=0), chats(12))
        assert [r.outcome for r in replies] == [Outcome.OK] * 12
        assert server.seen and second.seen and len(server.seen) + len(second.seen) == 12
    assert not no_wait


def test_the_others_take_over_while_one_server_asks_for_a_pause(
    server: LLMServer, client: Connect, no_wait: list[float]
) -> None:
    server.fault = lambda number, body: "429"
    with serve() as second:
        engine = client(base_urls=[server.url, second.url], window=1, retries=0)
        assert [r.outcome for r in ask(engine, chats(9))] == [Outcome.OK] * 9
        assert (len(server.seen), len(second.seen), no_wait) == (1, 9, [])


def test_a_server_that_recovers_is_asked_again(server: LLMServer, client: Connect) -> None:
    server.fault = lambda number, body: "500" if number < 3 else None
    with serve() as second:
        second.delay = server.delay = 0.02
        replies = ask(client(base_urls=[server.url, second.url], window=2), chats(60))
        assert [r.outcome for r in replies] == [Outcome.OK] * 60
    assert len(server.seen) > 3


def test_work_is_shared_as_the_servers_say_that_they_take_it(server: LLMServer, client: Connect) -> None:
    with serve() as second:
        server.reports, second.reports = {"/props": {"total_slots": 1}}, {"/props": {"total_slots": 3}}
        server.crowd, second.crowd = 2, 6
        server.delay = second.delay = 0.2  # time for one too many
        ask(client(base_urls=[server.url, second.url], window=None), chats(8))
        assert (server.most_flying, second.most_flying) == (2, 6)


@pytest.mark.parametrize("servers", [1, 2])
def test_no_server_is_one_line_that_names_the_option(client: Connect, no_wait: list[float], servers: int) -> None:
    with nobody() as first, nobody() as second:
        engine = client(base_urls=[first, second][:servers], retries=2)
        with pytest.raises(EngineError, match=r"llm.base_urls.*does not answer.*after 3 tries") as error:
            ask(engine, [HELLO])
    assert "\n" not in str(error.value) and len(no_wait) == 2


@pytest.mark.parametrize("reply", [b"", None])
def test_a_server_that_says_nothing_is_down(client: Connect, reply: bytes | None) -> None:
    with bare(reply) as url:
        engine = client(base_urls=[url], retries=1, timeout=0.3)
        with pytest.raises(EngineError, match=r"llm.base_urls.*does not answer"):
            ask(engine, [HELLO])


def test_a_server_that_sends_no_http_is_an_error_of_the_call(client: Connect) -> None:
    with bare(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as url:
        (reply,) = ask(client(base_urls=[url], retries=1), [HELLO])
    assert reply.outcome == Outcome.ERROR and "broke off" in reply.output


def test_a_call_on_which_the_server_hangs_up_fails_alone_while_others_are_answered(client: Connect) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(0.01)
            if b'"number 3"' not in sent:
                body = b'{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{web.server_address[1]}/v1"
        replies = ask(client(base_urls=[url], window=2, retries=1), chats(100))
        web.shutdown()
        thread.join()
    assert [n for n, r in enumerate(replies) if r.outcome != Outcome.OK] == [3]
    assert "does not answer" in replies[3].output


def test_replies_that_came_before_the_server_went_are_given_first(client: Connect, no_wait: list[float]) -> None:
    with serve() as short_lived:
        engine = client(base_urls=[short_lived.url], retries=1)
        engine.submit(0, HELLO)
        while not short_lived.seen or short_lived.flying:
            time.sleep(0.01)
    engine.submit(1, BEES)
    given: list[int] = []
    with pytest.raises(EngineError):
        for _ in range(3):
            given += [ticket for ticket, _ in engine.step()]
    assert given == [0]


def test_an_engine_closes_with_calls_in_flight(server: LLMServer) -> None:
    before = threading.active_count()
    server.delay = 3.0
    engine = OpenAI("scripted", [server.url], window=2)
    for ticket in range(5):
        engine.submit(ticket, HELLO)
    while not server.flying:
        time.sleep(0.01)
    engine.close()
    engine.close()
    assert threading.active_count() == before


def test_the_key_goes_into_the_header_and_nowhere_else(
    server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")  # as read from a file
    server.fault = lambda number, body: {1: "401", 2: "key in a 500"}.get(number)
    replies = ask(client(), [HELLO]) + ask(client(), [HELLO]) + ask(client(retries=0), [HELLO])
    assert [headers["authorization"] for _, headers, _ in server.seen] == [f"Bearer {KEY}"] * 3
    assert [r.outcome for r in replies] == [Outcome.OK, Outcome.ERROR, Outcome.ERROR]
    assert [r.output for r in replies[1:]] == ["401 wrong key Bearer ***", f"{server.url} answered 500 wrong key Bearer ***"]


def test_the_key_variable_may_be_another(server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    ask(client(), [HELLO])
    ask(client(api_key_env="OTHER_KEY"), [HELLO])
    assert [headers.get("authorization") for _, headers, _ in server.seen] == [None, "Bearer sk-other"]


def test_a_password_in_a_url_goes_into_the_header_and_nowhere_else(
    server: LLMServer, client: Connect, no_wait: list[float]
) -> None:
    address = server.url.removeprefix("http://")
    with nobody() as gone:
        hidden = gone.replace("http://", "http://bee:h%6Fney-42@")
        engine = client(base_urls=[hidden], retries=0)
        with pytest.raises(EngineError, match=re.escape(gone)) as error:
            ask(engine, [HELLO])
    server.fault = lambda number, body: "401"
    (reply,) = ask(client(base_urls=[f"http://bee:h%6Fney-42@{address}"]), [HELLO])
    assert server.seen[0][1]["authorization"] == "Basic YmVlOmhvbmV5LTQy"
    assert reply.output == "401 wrong key Basic ***"
    for secret in ("honey", "h%6Fney"):
        assert secret not in str(error.value) + reply.output


@pytest.mark.parametrize(
    "urls", [[], ["127.0.0.1:8000"], ["ftp://host/v1"], ["http:///v1"], ["http://host:port/v1"], ["me:pw@h"]]
)
def test_servers_that_are_none_are_told(client: Connect, urls: list[str]) -> None:
    with pytest.raises(EngineError, match="llm.base_urls.*http://127.0.0.1:8000/v1") as error:
        client(base_urls=urls)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize("option", [{"window": 0}, {"timeout": 0}, {"retries": -1}])
def test_options_out_of_range_are_told(client: Connect, option: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="llm.{}={}".format(*next(iter(option.items())))):
        client(**option)


def test_one_server_need_not_stand_in_a_list(server: LLMServer, client: Connect) -> None:
    assert ask(client(base_urls=server.url + "/"), [HELLO])[0].outcome == Outcome.OK


SGLANG = {"max_running_requests": None, "internal_states": [{"effective_max_running_requests_per_dp": 5}] * 2}
VLLM = {"vllm_config": {"scheduler_config": {"max_num_seqs": 7}, "parallel_config": {"data_parallel_size": 2}}}


@pytest.mark.parametrize(
    ("reports", "window"),
    [
        ({"/props": {"total_slots": 4}}, 8),
        ({"/get_server_info": {"max_running_requests": 12}}, 24),
        ({"/get_server_info": SGLANG}, 20),
        ({"/server_info?config_format=json": SGLANG}, 20),
        ({"/server_info?config_format=json": VLLM}, 28),
        ({"/info": {"max_concurrent_requests": 128}}, 256),
        ({"/info": {"version": "2"}, "/props": {"total_slots": 3}}, 6),
        ({}, 64),
        ({"/props": [], "/info": {"max_concurrent_requests": "many"}, "/get_server_info": {"internal_states": 3}}, 64),
        ({"/props": {"total_slots": 0}}, 64),
    ],
)
def test_the_window_is_twice_what_the_server_reports(
    server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch, reports: dict[str, Any], window: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.reports = reports
    assert client(window=None).window == window
    assert len(server.looked_up) == 4
    assert {headers["authorization"] for _, headers in server.looked_up} == {f"Bearer {KEY}"}


def test_the_window_is_the_sum_over_the_servers_that_report(server: LLMServer, client: Connect) -> None:
    with serve() as second, serve() as silent, nobody() as gone, bare(None) as mute, bare(b"HTTP/1.1 what\r\n") as odd:
        server.reports, second.reports = {"/props": {"total_slots": 4}}, {"/info": {"max_concurrent_requests": 6}}
        urls = [server.url, second.url, silent.url, gone, mute, odd]
        assert client(base_urls=urls, window=None).window == 20


def test_servers_are_not_probed_where_the_window_is_given(server: LLMServer, client: Connect) -> None:
    assert client(window=3).window == 3
    assert not server.looked_up


def test_the_key_does_not_follow_a_redirection(server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve() as elsewhere:
        server.reports = {"/props": RedirectResponse(elsewhere.url.replace("/v1", "/props"))}
        elsewhere.reports = {"/props": {"total_slots": 4}}
        assert client(window=None).window == 64
        assert not elsewhere.looked_up
