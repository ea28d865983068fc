"""A real HTTP server on 127.0.0.1 that speaks the OpenAI interface. What it answers, and how it fails, a test chooses."""

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from serving_thread import listening, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from uar.collections import Collection

Messages = list[dict[str, str]]
ODD_ANSWERS = {"prose": "I think the third one helps most.", "wrong identifiers": "My selection:[[977]]", "empty answer": ""}
JSON = "application/json"
HALF_A_CHARACTER = r'{"choices": [{"message": {"content": "\ud83d!"}, "finish_reason": "stop"}]}'
DRIP = 0.05  # seconds between two bytes of a slow drip


@dataclass
class LLMServer:
    """`answer`: text of a chat's reply; `thinking`: what stands before it, under the name `thinking_field`. `choose`: tokens
    and log-likelihoods that a chat's answer may start with; None: no log-likelihoods are given. `fault(n, body)`: for the n-th
    request a name of `broken` or of ODD_ANSWERS, or None. `reports`: JSON of GET requests by path; others are not found.

    `listed`: tokens and log-likelihoods of a prompt that is scored.

    `crowd`: the first requests are answered once so many are in work, or after two minutes.

    `seen`: (path, headers, body) of every POST request; `looked_up`: (path and query, headers) of every GET request.
    `flying`, `most_flying`: requests in work now, and at most.
    """

    url: str
    answer: Callable[[Messages], str] = lambda messages: "My selection:[]"
    thinking: str = ""
    thinking_field: str = "reasoning_content"
    choose: Callable[[Messages], dict[str, float]] | None = None
    listed: Callable[[str], list[tuple[str, float | None]]] = lambda prompt: [
        (t, v) for t, _, v in words_with_logprobs(prompt)
    ]
    fault: Callable[[int, dict[str, Any]], str | None] = lambda number, body: None
    delay: float = 0.0
    crowd: int = 0
    finish_reason: Any = "stop"
    reports: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    looked_up: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    flying: int = 0
    most_flying: int = 0


@contextmanager
def serve() -> Iterator[LLMServer]:
    """Serve in a thread for as long as the block runs."""
    with listening() as (bound, address):
        state = LLMServer(f"{address}/v1")
        with serving(_app(state), bound):
            yield state


def gold_answers(collection: Collection) -> Callable[[Messages], str]:
    """A perfect annotator of graded judgements: grade 1 and 2 are on the topic, grade 2 is useful.

    It selects, ranks where the task shows the form `[i] > [j]`, and else answers the question. Passages are shown as user
    turns, or as lines of the last one; the task may say which of them to consider.
    """
    questions = {query.text: query for query in collection.queries.values()}
    ids = {_letters(text): id_ for id_, text in zip(collection.corpus.ids(), collection.corpus.texts(), strict=True)}

    def answer(messages: Messages) -> str:
        task = [line for line in messages[-1]["content"].splitlines() if not PASSAGE.match(line)]
        query = questions[_told("Question:", task)]
        form = [line for line in task if not line.lstrip().startswith(("Question:", "Reference answer:"))]
        ranks = any(" > " in line for line in form)
        if not ranks and "My selection" not in "".join(form):
            return f"It is {query.answers[0]}."
        grades = {n: collection.qrels[query.id].get(ids[_letters(text)], 0) for n, text in _shown(messages)}
        considered = re.findall(r"\[(\d+)\]", _told("Consider only the passages", task)) or list(grades)
        if ranks:
            return " > ".join(f"[{n}]" for n in sorted(considered, key=lambda n: -grades[n]))
        least = 2 if any("Reference answer:" in line for line in task) else 1
        return f"My selection:[{','.join(f'[{n}]' for n in considered if grades[n] >= least)}]"

    return answer


PASSAGE = re.compile(r"\[(\d+)\] (.*)", re.DOTALL)


def _told(start: str, lines: list[str]) -> str:
    """The rest of the line that starts so, empty where none does."""
    return next((line.strip().removeprefix(start).strip() for line in lines if line.strip().startswith(start)), "")


def _shown(messages: Messages) -> list[tuple[str, str]]:
    """Number and text of the passages: a turn before the last is one passage, the last holds one a line."""
    parts = [m["content"] for m in messages[:-1] if m["role"] == "user"] + messages[-1]["content"].splitlines()
    return [(m.group(1), m.group(2)) for m in map(PASSAGE.match, parts) if m]


def _letters(text: str) -> str:
    """What is left of a passage however a prompt sets spaces and signs."""
    return re.sub(r"\W+", "", text)


def words_with_logprobs(text: str) -> list[tuple[str, int, float | None]]:
    """Tokens of the server: words with the space before them, as (token, offset, log-likelihood), a nat a letter."""
    found = [(m.group(), m.start()) for m in re.finditer(r"\s*\S+", text)]
    return [(word, at, None if at == 0 else -float(len(word.strip()))) for word, at in found]


def _app(state: LLMServer) -> Starlette:
    async def respond(request: Request) -> Any:
        body = await request.json()
        number, delay = len(state.seen), state.delay
        state.seen.append((request.url.path, dict(request.headers), body))
        state.flying += 1
        state.most_flying = max(state.most_flying, state.flying)
        try:
            fault = state.fault(number, body)
            await asyncio.sleep(delay)
            patience = time.monotonic() + 120
            while state.most_flying < state.crowd and time.monotonic() < patience:
                await asyncio.sleep(0.01)
            if fault and fault not in ODD_ANSWERS:
                return broken(fault, request)
            return JSONResponse(_completion(state, body, ODD_ANSWERS.get(fault or "")))
        finally:
            state.flying -= 1

    async def report(request: Request) -> Response:
        address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        state.looked_up.append((address, dict(request.headers)))
        told = state.reports.get(address)
        if isinstance(told, Response):
            return told
        return PlainTextResponse("no such thing", 404) if told is None else JSONResponse(told)

    paths = ("/v1/chat/completions", "/v1/completions")
    routes = [Route(path, respond, methods=["POST"]) for path in paths]
    return Starlette(routes=[*routes, Route("/{path:path}", report, methods=["GET"])])


def _completion(state: LLMServer, body: dict[str, Any], odd: str | None = None) -> dict[str, Any]:
    if "messages" in body:
        text = state.answer(body["messages"]) if odd is None else odd
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        if state.thinking:
            choice["message"][state.thinking_field] = state.thinking
        if body.get("logprobs") and state.choose:
            listed = [{"token": token, "logprob": value} for token, value in state.choose(body["messages"]).items()]
            choice["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}]}
        counts = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    else:
        tokens = [*state.listed(body["prompt"]), (" more", -50.0)]
        logprobs = {
            "tokens": [token for token, _ in tokens],
            "text_offset": [0, *itertools.accumulate(len(token) for token, _ in tokens[:-1])],
            "token_logprobs": [value for _, value in tokens],
        }
        choice = {"text": body["prompt"] + " more", "logprobs": logprobs}
        counts = {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1}
    return {"choices": [{"index": 0, "finish_reason": state.finish_reason, **choice}], "usage": counts}


def broken(fault: str, request: Request) -> Any:
    """The response that a fault's name stands for; `429 after X` has X as its Retry-After, `200 X` is the JSON X."""
    if fault in {"half a body", "slow drip"}:
        return _half_a_body if fault == "half a body" else _slow_drip
    if fault.startswith("429 after "):
        return Response(status_code=429, headers={"Retry-After": fault.removeprefix("429 after ")})
    if fault.startswith("200 "):
        return Response(fault.removeprefix("200 "), media_type=JSON)
    told = f"wrong key {request.headers.get('authorization', '')}"
    return {
        "429": Response(status_code=429, headers={"Retry-After": "17"}),
        "429 without a time": PlainTextResponse("too many", 429),
        "425": PlainTextResponse("too early", 425),
        "408": PlainTextResponse("too late", 408),
        "409": PlainTextResponse("conflict", 409),
        "301": Response(status_code=301, headers={"Location": "http://127.0.0.1:9/v1/chat/completions"}),
        "500": PlainTextResponse("it broke", 500),
        "503": PlainTextResponse("too busy", 503),
        "no echo": PlainTextResponse('{"error": {"code": 500, "message": "Only no echo is supported"}}', 500),  # llama.cpp
        "no such field": PlainTextResponse('{"error": {"message": "echo is not supported"}}', 422),
        "reply alone": JSONResponse(
            {"choices": [{"text": "x", "finish_reason": "length", "logprobs": {"content": [{"token": "x", "logprob": -1.0}]}}]}
        ),
        "400": PlainTextResponse("the prompt is too long", 400),
        "401": PlainTextResponse(told, 401),
        "key in a 500": PlainTextResponse(told, 500),
        "broken JSON": Response('{"choices": [{"mess', media_type=JSON),
        "not JSON": PlainTextResponse("<html>gateway</html>"),
        "no choices": JSONResponse({"choices": []}),
        "no logprobs": JSONResponse(
            {"choices": [{"text": "x", "message": {"content": "x"}, "logprobs": None, "finish_reason": "length"}]}
        ),
        "a list as content": JSONResponse(
            {"choices": [{"message": {"content": [{"type": "text"}]}, "finish_reason": "stop"}]}
        ),
        "half a character": Response(HALF_A_CHARACTER, media_type=JSON),
        "null content": JSONResponse({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
        "refusal": JSONResponse({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}),
    }[fault]


async def _half_a_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Breaks off before its Content-Length, so that the connection is closed on the reader."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"choices": [{"message": {"content": "My sel'})


async def _slow_drip(scope: Scope, receive: Receive, send: Send) -> None:
    """Never silent for long, never done in time."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    for _ in range(int(10 / DRIP)):
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await asyncio.sleep(DRIP)
