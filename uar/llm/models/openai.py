"""The `openai` engine: any server that speaks the OpenAI HTTP interface (vLLM, SGLang, llama.cpp, TGI, hosted)."""

import asyncio
import contextlib
import json
import math
import os
import queue
import random
import re
import threading
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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
    without_base64,
)
from uar.llm.models.openai_servers import Server, Servers
from uar.llm.record import Generate, Outcome, Reply, Request, Score
from uar.storage.files import digest

WITHOUT_ECHO = re.compile("echo|logprobs", re.IGNORECASE)  # what servers that score no prompt say in whatever status
AGAIN = {408, 409, 425, 429}  # and every 5xx
WINDOW = 64  # where no server says what it takes
CONNECT_SECONDS = 10.0
LONGEST_WAIT = 3_600.0  # seconds of Retry-After that are waited
LIMIT_WAIT = 8  # times `backoff`: the first wait where a server limits its rate and says no time; limits hold for a minute
LONGEST_LIMIT_WAIT = 60.0
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
T = TypeVar("T")


class Fault(Exception):
    """An attempt that may be made again. `down`: nothing answers there; `late`: it took longer than allowed; `limited`: the
    server limits its rate; `pause`: the seconds after which the server takes calls again, as it says."""

    def __init__(
        self, problem: str, down: bool = False, late: bool = False, limited: bool = False, pause: float = 0.0
    ) -> None:
        super().__init__(problem)
        self.down, self.late, self.limited, self.pause = down, late, limited, pause


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
        tries, counted, moves, wait = 0, 0, 0, 0.0
        failed: Server | None = None
        before = last = time.monotonic()  # when the last failure but one, and the last one, came
        while True:
            server = self._servers.next(failed)
            pause = max(wait, server.closed_for())
            if pause > LONGEST_WAIT:
                return _error(f"{server.shown} takes no calls for {pause:.0f} s, as it says", start)
            if pause:
                await asyncio.sleep(pause)
            try:
                if isinstance(request, Score):
                    return await self._score(server, path, data, request, start)
                return await self._attempt(server, path, data, request, start)
            except Fault as error:
                fault, failed = error, server
            if fault.limited and not fault.pause:
                least = min(LONGEST_LIMIT_WAIT, LIMIT_WAIT * self._backoff * 2 ** min(tries, 16))
                fault.pause = least * random.uniform(1.0, 1.5)  # noqa: S311 jitter, as below
            self._servers.fails(server, str(fault), fault.down, fault.pause)
            before, last = last, time.monotonic()
            if (fault.down or fault.pause) and moves < len(self._servers) - 1 and self._servers.others_are_well(server):
                moves, wait = moves + 1, 0.0  # another server takes over at once
                continue
            tries, moves = tries + 1, 0
            counted = 0 if fault.limited and self._servers.served_since(before) else counted + 1
            if counted > self._retries:
                break
            wait = self._backoff * 2 ** max(0, counted - 1) * random.uniform(0.5, 1.5)  # noqa: S311 jitter, no result depends on it
        gone = fault.down or (fault.late and not await self._servers.any_there(self._session))
        if gone and not self._servers.answered_since(before):
            raise EngineError(
                f"llm.base_urls: {fault} after {tries} tries; start the server or mend the URL. "
                "What was answered is kept; the same command goes on from there"
            )
        return _error(str(fault), start)

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
        options: dict[str, Any] = {"headers": server.headers, "proxy": server.proxy, "allow_redirects": False}
        server.flying += 1
        try:
            async with self._session.post(server.at(path), data=data, timeout=self._timeout, **options) as response:
                payload = await response.read()
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
        self._servers.responds(server)
        status, inside = response.status, ""
        body: Any = None
        if 200 <= status < 300:
            try:
                body = json.loads(payload)
            except UNREADABLE as error:
                raise Fault(f"{server.shown} sent an unreadable body ({type(error).__name__})") from error
            status, inside = error_in(body) or (status, "")
        if not 200 <= status < 300:
            text = f"(in an answer of status {response.status}) {inside}" if inside else payload.decode("utf-8", "replace")
            message = " ".join(self._servers.hide(without_base64(text)).split())[:300]
            if isinstance(request, Score) and not server.scores and WITHOUT_ECHO.search(message):
                raise _no_scores(server, f"{status} {message}")
            if status in AGAIN or status >= 500:
                problem = f"{server.shown} answered {status} {message}".rstrip()
                raise Fault(problem, limited=status == 429, pause=_retry_after(response))
            self._servers.serves(server)
            return _error(f"{status} {message}", start)
        try:
            reply = read(request, body, time.perf_counter() - start, self._constrain)
        except NoPromptLogprobs as error:
            if not server.scores:
                raise _no_scores(server, f"it {error}") from error
            reply = _error(f"{server.shown} {error}", start)
        except NoLogprobs as error:
            reply = _error(f"{server.shown} {error}; use another server or engine", start)
        except NotEnded as error:
            raise Fault(f"{server.shown} {error}") from error
        except UNREADABLE as error:
            raise Fault(f"{server.shown} sent an unreadable body ({type(error).__name__})") from error
        self._servers.serves(server)
        server.scores |= isinstance(request, Score) and reply.outcome == Outcome.OK
        return reply


def _no_scores(server: Server, message: str) -> EngineError:
    return EngineError(
        f"llm.base_urls: {server.shown} cannot score a text ({message}); use a server that gives log-likelihoods of a prompt, "
        "such as vLLM, or llm=vllm or llm=transformers"
    )


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


def _error(text: str, start: float) -> Reply:
    return Reply(text, Outcome.ERROR, seconds=time.perf_counter() - start)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds that a server asks for, as a number or as a date, which its own clock is compared with."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        until, now = _date(value), _date(response.headers.get("Date", "")) or datetime.now(UTC)
        seconds = (until - now).total_seconds() if until else 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _date(text: str) -> datetime | None:
    """An HTTP date, None where it is none."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
