"""A real HTTP server on 127.0.0.1 that speaks the OpenAI interface. What it answers, and how it fails, a test chooses."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from uar.collections import Collection

Messages = list[dict[str, str]]


@dataclass
class LLMServer:
    """`answer`: text of a chat's reply. `fault(n, body)`: a name of `broken` for the n-th request, or None. `seen`: (path,
    headers, body) of every request. `flying`, `most_flying`: requests in work now, and at most."""

    url: str
    answer: Callable[[Messages], str] = lambda messages: "My selection:[]"
    fault: Callable[[int, dict[str, Any]], str | None] = lambda number, body: None
    delay: float = 0.0
    finish_reason: str = "stop"
    seen: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    flying: int = 0
    most_flying: int = 0


@contextmanager
def serve() -> Iterator[LLMServer]:
    """Serve in a thread for as long as the block runs."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        state = LLMServer(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        server = uvicorn.Server(uvicorn.Config(_app(state), log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield state
        finally:
            server.should_exit = server.force_exit = True
            thread.join(timeout=10)


def gold_answers(collection: Collection) -> Callable[[Messages], str]:
    """A perfect annotator of graded judgements: grade 1 and 2 are on the topic, grade 2 is useful."""
    questions = {query.text: query for query in collection.queries.values()}
    ids = {" ".join(text.split()): id_ for id_, text in zip(collection.corpus.ids(), collection.corpus.texts(), strict=True)}

    def answer(messages: Messages) -> str:
        last = messages[-1]["content"]
        found = re.search(r"^\s*Question: (.*)$", last, re.MULTILINE)
        query = questions[found.group(1)]
        if "My selection" not in last:
            return f"It is {query.answers[0]}."
        least = 2 if "Reference answer:" in last else 1
        shown = [re.match(r"\[(\d+)\] (.*)", m["content"], re.DOTALL) for m in messages if m["role"] == "user"]
        numbers = [m.group(1) for m in shown if m and _grade(collection, query.id, ids, m.group(2)) >= least]
        return f"My selection:[{','.join(f'[{n}]' for n in numbers)}]"

    return answer


def _grade(collection: Collection, query_id: str, ids: dict[str, str], text: str) -> int:
    return collection.qrels[query_id].get(ids[" ".join(text.split())], 0)


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
            return broken(fault, request) if fault else JSONResponse(_completion(state, body))
        finally:
            state.flying -= 1

    paths = ("/v1/chat/completions", "/v1/completions")
    return Starlette(routes=[Route(path, respond, methods=["POST"]) for path in paths])


def _completion(state: LLMServer, body: dict[str, Any]) -> dict[str, Any]:
    if "messages" in body:
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": state.answer(body["messages"])}}
        counts = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    else:
        tokens = words_with_logprobs(body["prompt"]) + [(" more", len(body["prompt"]), -50.0)]
        logprobs = {
            "tokens": [token for token, _, _ in tokens],
            "text_offset": [at for _, at, _ in tokens],
            "token_logprobs": [value for _, _, value in tokens],
        }
        choice = {"text": body["prompt"] + " more", "logprobs": logprobs}
        counts = {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1}
    return {"choices": [{"index": 0, "finish_reason": state.finish_reason, **choice}], "usage": counts}


def broken(fault: str, request: Request) -> Any:
    """The response that a fault's name stands for."""
    if fault == "half a body":
        return _half_a_body
    told = f"wrong key {request.headers.get('authorization', '')}"
    return {
        "429": Response(status_code=429, headers={"Retry-After": "17"}),
        "500": PlainTextResponse("it broke", 500),
        "503": PlainTextResponse("too busy", 503),
        "400": PlainTextResponse("the prompt is too long", 400),
        "401": PlainTextResponse(told, 401),
        "broken JSON": Response('{"choices": [{"mess', media_type="application/json"),
        "not JSON": PlainTextResponse("<html>gateway</html>"),
        "no choices": JSONResponse({"choices": []}),
        "null content": JSONResponse({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
        "refusal": JSONResponse({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}),
    }[fault]


async def _half_a_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Breaks off before its Content-Length, so that the connection is closed on the reader."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"choices": [{"message": {"content": "My sel'})
