"""The `openai` engine: any server that speaks the OpenAI HTTP interface (vLLM, llama.cpp, TGI, hosted)."""

import asyncio
import itertools
import os
import queue
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx

from uar.annotation.engines.engine import Engine
from uar.annotation.record import Generate, Outcome, Reply, Request
from uar.errors import EngineError

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


class OpenAIEngine(Engine):
    """Asynchronous client over several servers.

    `base_urls`: such as http://127.0.0.1:8000/v1, used in turn. `window`: requests in flight. A 429, 5xx, time-out or
    broken connection is tried again up to `retries` times with exponential backoff and jitter, `Retry-After` obeyed;
    another 4xx is final for its call. Where no server answers any more, `step` raises EngineError. The key is read from
    the environment variable named by `api_key_env` and is kept nowhere else. Log-likelihoods use `/completions` with
    `echo`, which vLLM and llama.cpp serve.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str],
        revision: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        window: int = 64,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 0.5,
    ) -> None:
        if not base_urls:
            raise EngineError("llm.base_urls is empty; give the servers, such as llm.base_urls=[http://127.0.0.1:8000/v1]")
        self.model = model
        self.window = window
        self._urls = [url.rstrip("/") for url in base_urls]
        self._turn = itertools.cycle(self._urls)
        self._retries, self._backoff = retries, backoff
        self._done: queue.Queue[tuple[int, Reply] | EngineError] = queue.Queue()
        self._flying = 0
        self._key = key = os.environ.get(api_key_env)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, pool=None),  # a call that waits for its turn is not late
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=window, max_keepalive_connections=window),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()

    def submit(self, ticket: int, request: Request) -> None:
        self._flying += 1
        asyncio.run_coroutine_threadsafe(self._answer(ticket, request), self._loop)

    def step(self) -> list[tuple[int, Reply]]:
        if not self._flying:
            return []
        items = [self._done.get()]
        while not self._done.empty():
            items.append(self._done.get_nowait())
        self._flying -= len(items)
        replies: list[tuple[int, Reply]] = [i for i in items if not isinstance(i, EngineError)]
        if not replies:
            raise next(i for i in items if isinstance(i, EngineError))
        for item in items:
            if isinstance(item, EngineError):  # told after the replies that came beside it are kept
                self._flying += 1
                self._done.put(item)
        return replies

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    async def _answer(self, ticket: int, request: Request) -> None:
        try:
            self._done.put((ticket, await self._ask(request)))
        except EngineError as error:
            self._done.put(error)
        except Exception as error:  # a bug must end the run, not hang it
            self._done.put(EngineError(f"llm=openai: {type(error).__name__}: {error}"))

    async def _ask(self, request: Request) -> Reply:
        start = time.perf_counter()
        path, body = self._body(request)
        for attempt in range(self._retries + 1):
            url = next(self._turn)
            wait = self._backoff * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 jitter, no result depends on it
            try:
                response = await self._client.post(f"{url}{path}", json=body)
            except httpx.TransportError as error:
                # A call that is too slow, or whose answer breaks off, fails alone: the server is there.
                alone = isinstance(error, httpx.ReadTimeout) or "message body" in str(error)
                down, problem = not alone, f"{url} {'broke off' if alone else 'does not answer'} ({type(error).__name__})"
            else:
                down = False
                if response.is_success:
                    try:
                        return _read(request, response.json(), time.perf_counter() - start)
                    except (ValueError, KeyError, IndexError, TypeError) as error:
                        problem = f"{url} sent an unreadable body ({type(error).__name__})"
                elif response.status_code in AGAIN:
                    problem = f"{url} answered {response.status_code}"
                    wait = _retry_after(response) or wait
                else:
                    text = " ".join(response.text.replace(self._key or "\0", "***").split())[:300]
                    return Reply(f"{response.status_code} {text}", Outcome.ERROR, seconds=time.perf_counter() - start)
            if attempt < self._retries:
                await asyncio.sleep(wait)
        if down:
            raise EngineError(
                f"llm.base_urls: {problem} after {self._retries + 1} tries; start the server or mend the URL. "
                "What was answered is kept; the same command goes on from there"
            )
        return Reply(problem, Outcome.ERROR, seconds=time.perf_counter() - start)

    def _body(self, request: Request) -> tuple[str, dict[str, Any]]:
        if isinstance(request, Generate):
            sampling = {"max_tokens": request.max_tokens, "temperature": request.temperature}
            return "/chat/completions", {"model": self.model, "messages": request.chat(), **sampling}
        prompt = request.prefix + request.target
        return "/completions", {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(60.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _read(request: Request, body: dict[str, Any], seconds: float) -> Reply:
    usage = body.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    counts: dict[str, Any] = {
        "tokens_in": int(usage.get("prompt_tokens") or 0),
        "tokens_out": int(usage.get("completion_tokens") or 0),
        "tokens_cached": int(cached),
        "seconds": seconds,
    }
    choice = body["choices"][0]
    if isinstance(request, Generate):
        message = choice["message"]
        text = message.get("content") or ""
        if message.get("refusal"):
            return Reply(str(message["refusal"]), Outcome.REFUSED, **counts)
        return Reply(text, Outcome.TRUNCATED if choice.get("finish_reason") == "length" else Outcome.OK, **counts)
    scored = choice["logprobs"]
    start, end = len(request.prefix), len(request.prefix) + len(request.target)
    values = [v for v, at in zip(scored["token_logprobs"], scored["text_offset"], strict=True) if start <= at < end]
    if not values or any(v is None for v in values):
        raise ValueError("no log-likelihoods of the prompt")
    return Reply.of_score(sum(values), len(values), **counts)
