"""The `openai` engine: any server that speaks the OpenAI HTTP interface (vLLM, SGLang, llama.cpp, TGI, hosted)."""

import asyncio
import contextlib
import json
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp
from omegaconf import OmegaConf

from uar.errors import EngineError
from uar.llm.models.model import Model
from uar.llm.models.openai_bodies import (
    NoLogprobs,
    NoPromptLogprobs,
    NotEnded,
    adapted,
    body_of,
    checked_constrain,
    error_in,
    holds,
    read,
    tokens_of,
    without_base64,
)
from uar.llm.models.openai_servers import Server, Servers
from uar.llm.models.openai_tries import Fault, Tries, retry_after
from uar.llm.record import Generate, Outcome, Reply, Request, Score
from uar.storage.files import digest

WITHOUT_ECHO = re.compile("echo|logprobs", re.IGNORECASE)  # what servers that score no prompt say in whatever status
AGAIN = {408, 409, 425, 429}  # and every 5xx
WINDOW = 64  # where no server says what it takes
CONNECT_SECONDS = 10.0
LONGEST_WAIT = 3_600.0  # seconds of Retry-After that are waited
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
T = TypeVar("T")


class OpenAI(Model):
    """Asynchronous client over several servers, in a thread of its own.

    `base_urls`: such as http://127.0.0.1:8000/v1, past proxies where that is this machine; each call goes to the one with the
    least to do of those that answered lately. `window`: calls in flight; None: twice what the servers say that they work on at
    a time, together, or 64 where none says it. `timeout`: seconds of one attempt, from the connection to the last byte. A 408,
    409, 425, 429, 5xx, time-out, broken connection, unreadable answer, or reply of which it is not known whether it is whole,
    is tried again up to `retries` times with exponential backoff and jitter, no sooner than `Retry-After` says. A 429 without
    it is waited for longer: five tries take two minutes. Where others were served since the call's last 429, its tries count
    anew, so that calls wait for their turn under a steady quota. Another status is final for its call. An error inside an
    answer of status 200 counts as the status that it names. Where no server answers any more, `step` raises EngineError. The
    key is read from the environment variable named by `api_key_env` and is shown nowhere. Images are sent as parts of a turn
    (`image_url`), files as data URIs.

    `constrain`: True sends `Generate.pattern` as vLLM's `structured_outputs`, which other servers may refuse; `json_schema` as
    the pattern of a string in an object (`response_format`), out of which the reply is taken. `max_tokens_field`: what the
    server calls the limit of a chat's reply. `extra`: fields of every body on top of these, null to leave one out; they are
    a part of the model's name in records.

    `Score` uses `/completions` with `echo`, which vLLM serves and llama.cpp does not: the first call shows it, for which
    the others wait, and `step` raises EngineError. The tokens that are scored spell the target, else the
    call is an error. `Choose` reads the 20 likeliest tokens, and gives a choice that is not among them an upper bound: the
    last one's log-likelihood, or what all of them leave.
    """

    name = "openai"
    takes_images = True

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str],
        revision: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        window: int | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 0.5,
        constrain: bool | str | None = None,
        max_tokens_field: str = "max_tokens",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if (window is not None and window < 1) or timeout <= 0 or retries < 0 or backoff < 0:
            raise EngineError(
                f"llm.window={window}, llm.timeout={timeout}, llm.retries={retries}, llm.backoff={backoff}: window must be "
                "null or at least 1, timeout above 0, retries and backoff at least 0"
            )
        self._constrain = checked_constrain(constrain)
        self.model = model
        self._max_tokens_field, self._extra = max_tokens_field, dict(extra or {})
        self._servers = Servers(base_urls, os.environ.get(api_key_env, "").strip(), backoff)
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout / 2))
        self._retries, self._backoff = retries, backoff
        self._waiting: deque[tuple[int, Request]] = deque()
        self._done: queue.SimpleQueue[tuple[int, Reply] | EngineError] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed = 0  # replies that step has not given yet
        self._woken = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()
        self._session = self._wait_for(_session())
        self.window = window or 2 * (self._wait_for(self._servers.report(self._session)) or 0) or WINDOW

    @classmethod
    def identity(cls, config: Mapping[str, Any]) -> str:
        """The name that servers know it by, with `revision`; fields that they are sent besides make another name. What a
        server says that it serves is no part of it: it may call the same weights anything, and stands in the ledger."""
        name = f"{config['model']}@{config['revision']}" if config.get("revision") else str(config["model"])
        extra = config.get("extra") or {}
        plain = OmegaConf.to_container(extra, resolve=True) if OmegaConf.is_config(extra) else extra
        return f"{name}+{digest(plain)[:8]}" if plain else name

    @classmethod
    def gpus(cls, config: Mapping[str, Any]) -> float | None:
        return None

    def holds(self, request: Generate) -> bool:
        return holds(request, self._constrain)

    def serves(self) -> dict[str, Any]:
        return self._wait_for(self._servers.served(self._session, self.model))

    def submit(self, ticket: int, request: Request) -> None:
        self._owed += 1
        self._waiting.append((ticket, request))
        if not self._woken:  # one wake-up for all that is submitted before the thread gets to it
            self._woken = True
            self._loop.call_soon_threadsafe(self._start_waiting)

    def step(self) -> list[tuple[int, Reply]]:
        if not self._owed:
            return []
        items = [self._done.get()]
        while not self._done.empty():
            items.append(self._done.get_nowait())
        replies = [item for item in items if not isinstance(item, EngineError)]
        errors = [item for item in items if isinstance(item, EngineError)]
        if not replies:
            self._owed -= len(errors)
            raise errors[0]
        for error in errors:  # told after the replies that came beside it are kept
            self._done.put(error)
        self._owed -= len(replies)
        return replies

    def close(self) -> None:
        if self._loop.is_closed():
            return
        with contextlib.suppress(TimeoutError):
            self._wait_for(self._end(), timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    async def _end(self) -> None:
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def _start_waiting(self) -> None:
        self._woken = False
        while self._waiting and len(self._tasks) < self.window:
            task = self._loop.create_task(self._answer(*self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_waiting()

    async def _answer(self, ticket: int, request: Request) -> None:
        try:
            self._done.put((ticket, await self._ask(request)))
        except EngineError as error:
            self._done.put(error)
        except Exception as error:  # a bug must end the run, not hang it
            self._done.put(EngineError(self._servers.hide(f"llm=openai: {type(error).__name__}: {error}")))

    async def _ask(self, request: Request) -> Reply:
        start = time.perf_counter()
        path, body = body_of(request, self.model, self._constrain)
        body = adapted(body, self._max_tokens_field, self._extra)
        data = json.dumps(body, separators=(",", ":")).encode()
        tries = Tries(self._servers, self._retries, self._backoff)
        while True:
            server = self._servers.next(tries.failed)
            pause = max(tries.wait, server.closed_for())
            if pause > LONGEST_WAIT:
                return _error(f"{server.shown} takes no calls for {pause:.0f} s, as it says", start, tries.tokens)
            if pause:
                await asyncio.sleep(pause)
            try:
                if isinstance(request, Score):
                    return await self._score(server, path, data, request, start)
                return await self._attempt(server, path, data, request, start)
            except Fault as error:
                fault = error
            if not tries.go_on(server, fault):
                break
        gone = fault.down or (fault.late and not await self._servers.any_there(self._session))
        if gone and not self._servers.answered_since(tries.before):
            raise EngineError(
                f"llm.base_urls: {fault} after {tries.number} tries; start the server or mend the URL. "
                "What was answered is kept; the same command goes on from there"
            )
        return _error(str(fault), start, tries.tokens)

    async def _score(self, server: Server, path: str, data: bytes, request: Score, start: float) -> Reply:
        """The first call that scores a text shows whether the server does so; those that come meanwhile wait for it."""
        if server.tried is not None:
            await server.tried.wait()
            if server.cannot_score:
                raise EngineError(server.cannot_score)
            return await self._attempt(server, path, data, request, start)
        server.tried = asyncio.Event()
        try:
            return await self._attempt(server, path, data, request, start)
        except EngineError as error:
            server.cannot_score = str(error)
            raise
        finally:
            server.tried.set()

    async def _attempt(self, server: Server, path: str, data: bytes, request: Request, start: float) -> Reply:
        response, payload = await self._post(server, path, data)
        self._servers.responds(server)
        body = _body(server, payload) if 200 <= response.status < 300 else None
        status, inside = error_in(body) or (response.status, "")
        if 200 <= status < 300:
            reply = self._read(server, request, body, start)
        else:
            text = f"(in an answer of status {response.status}) {inside}" if inside else payload.decode("utf-8", "replace")
            message = " ".join(self._servers.hide(without_base64(text)).split())[:300]
            if isinstance(request, Score) and not server.scores and WITHOUT_ECHO.search(message):
                raise _no_scores(server, f"{status} {message}")
            if status in AGAIN or status >= 500:
                problem = f"{server.shown} answered {status} {message}".rstrip()
                raise Fault(problem, limited=status == 429, pause=retry_after(response))
            reply = _error(f"{status} {message}", start)
        self._servers.serves(server)
        server.scores |= isinstance(request, Score) and reply.outcome == Outcome.OK
        return reply

    async def _post(self, server: Server, path: str, data: bytes) -> tuple[aiohttp.ClientResponse, bytes]:
        """A response of whatever status, and its body; Fault where there is none."""
        options: dict[str, Any] = {"headers": server.headers, "proxy": server.proxy, "allow_redirects": False}
        server.flying += 1
        try:
            async with self._session.post(server.at(path), data=data, timeout=self._timeout, **options) as response:
                return response, await response.read()
        except aiohttp.ConnectionTimeoutError as error:
            raise Fault(f"{server.shown} does not answer ({type(error).__name__})", down=True) from error
        except TimeoutError as error:  # the server is there, but the call takes too long
            raise Fault(f"{server.shown} does not answer within {self._timeout.total} s (time-out)", late=True) from error
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
            raise Fault(f"{server.shown} broke off ({type(error).__name__})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Fault(f"{server.shown} does not answer ({type(error).__name__})", down=True) from error
        finally:
            server.flying -= 1

    def _read(self, server: Server, request: Request, body: Any, start: float) -> Reply:
        """The reply in the body of an answer without an error. One that is of no use has cost its tokens."""
        try:
            return read(request, body, time.perf_counter() - start, self._constrain)
        except NoPromptLogprobs as error:
            if not server.scores:
                raise _no_scores(server, f"it {error}") from error
            return _error(f"{server.shown} {error}", start, tokens_of(body))
        except NoLogprobs as error:
            return _error(f"{server.shown} {error}; use another server or engine", start, tokens_of(body))
        except NotEnded as error:
            raise Fault(f"{server.shown} {error}", tokens=tokens_of(body)) from error
        except UNREADABLE as error:
            raise _unreadable(server, error) from error


def _body(server: Server, payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except UNREADABLE as error:
        raise _unreadable(server, error) from error


def _unreadable(server: Server, error: Exception) -> Fault:
    return Fault(f"{server.shown} sent an unreadable body ({type(error).__name__})")


def _no_scores(server: Server, message: str) -> EngineError:
    return EngineError(
        f"llm.base_urls: {server.shown} cannot score a text ({message}); use a server that gives log-likelihoods of a prompt, "
        "such as vLLM, or llm=vllm or llm=transformers"
    )


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


def _error(text: str, start: float, tokens: Mapping[str, int] | None = None) -> Reply:
    return Reply(text, Outcome.ERROR, seconds=time.perf_counter() - start, **(tokens or {}))
