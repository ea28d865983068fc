"""The batch interface of a server: files that are uploaded and fetched, batches that are asked for and looked at."""

import asyncio
import json
import logging
import os
import random
import threading
import time
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import aiohttp

from uar.errors import EngineError
from uar.llm.models.batch_lines import ENDPOINT, UNREADABLE
from uar.llm.models.openai_bodies import without_base64
from uar.llm.models.openai_servers import Server, Servers

log = logging.getLogger(__name__)
AGAIN = {408, 409, 425, 429}  # and every 5xx
LISTED = 100  # batches that are looked through for one that may have been begun
CONNECT_SECONDS = 10.0
T = TypeVar("T")
TOO_LARGE = ("too large", "too big", "maximum", "exceed", "size limit")


class TooLarge(Exception):
    """The server takes no file of this size."""


class NotThere(Exception):
    """The server has no such file or batch."""


class NoAnswer(EngineError):
    """The last try failed in a way that may pass."""


class BatchServer:
    """One server. A call that fails in a way that may pass is tried again up to `retries` times, after `backoff` seconds that
    double; then EngineError. `timeout`: seconds of one try."""

    def __init__(self, base_url: str, api_key_env: str, timeout: float, retries: int, backoff: float, window: str) -> None:
        self._servers = Servers([base_url], os.environ.get(api_key_env, "").strip(), backoff)
        self._server: Server = self._servers.next(None)
        self.shown = self._server.shown
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout / 2))
        self._retries, self._backoff, self._window = retries, backoff, window
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="batch-server", daemon=True)
        self._thread.start()  # of its own, since the caller's may run a loop, as notebooks do

    def close(self) -> None:
        if self._loop.is_closed():
            return
        if self._session is not None:
            self._result(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    def upload(self, content: bytes) -> str:
        """The file's name at the server."""
        found: str = self._json("POST", "/files", content)["id"]
        return found

    def begin(self, file: str) -> str:
        """The name of the batch of a file. A try that broke off may have begun it, so the server's batches are looked
        through before another one."""
        body = {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": self._window}
        for tried in range(self._retries + 1):
            if tried:
                time.sleep(self._pause(tried))
                if begun := self.begun_of(file):
                    return begun
            try:
                found: str = self._json("POST", "/batches", body, tries=1)["id"]
                return found
            except NoAnswer:
                if tried == self._retries:
                    raise
        raise AssertionError("the last try returns or raises")

    def begun_of(self, file: str) -> str:
        """The name of the newest batch of a file, empty where there is none, or the server lists none."""
        try:
            listed = self._json("GET", "/batches", {"limit": LISTED})
            return next((str(b["id"]) for b in listed["data"] if b.get("input_file_id") == file), "")
        except NoAnswer:
            raise
        except (NotThere, EngineError, LookupError, TypeError, AttributeError):
            return ""

    def look(self, batch: str) -> Mapping[str, Any]:
        """What the server says of a batch; NotThere where it knows none."""
        found: Mapping[str, Any] = self._json("GET", f"/batches/{batch}")
        return found

    def content(self, file: str) -> bytes:
        return self._call("GET", f"/files/{file}/content", None, self._retries + 1)

    def _result(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _pause(self, tried: int) -> float:
        return self._backoff * 2 ** min(tried - 1, 16) * random.uniform(0.5, 1.5)  # noqa: S311 jitter

    def _json(self, method: str, path: str, sent: Any = None, tries: int | None = None) -> Any:
        payload = self._call(method, path, sent, tries or self._retries + 1)
        try:
            return json.loads(payload)
        except UNREADABLE as error:
            raise EngineError(
                f"llm=openai_batch: {self.shown}{path} sent an unreadable answer ({type(error).__name__})"
            ) from error

    def _call(self, method: str, path: str, sent: Any, tries: int) -> bytes:
        problem, passing = "", True
        for tried in range(tries):
            if tried:
                time.sleep(self._pause(tried))
            try:
                status, payload = self._result(self._attempt(method, path, sent))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = f"does not answer ({type(error).__name__})"
                continue
            if 200 <= status < 300:
                return payload
            text = " ".join(self._servers.hide(without_base64(payload.decode("utf-8", "replace"))).split())[:300]
            problem = f"answered {status} {text}".rstrip()
            large = status == 413 or (status == 400 and any(words in text.lower() for words in TOO_LARGE))
            if large and isinstance(sent, bytes):
                raise TooLarge(problem)
            if status == 404 and method == "GET":
                raise NotThere(problem)
            passing = status in AGAIN or status >= 500
            if not passing:
                break
        raise (NoAnswer if passing else EngineError)(
            f"llm=openai_batch: {self.shown}{path} {problem}; batches that were begun go on at the server, and the same "
            "command fetches them"
        )

    async def _attempt(self, method: str, path: str, sent: Any) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        headers = dict(self._server.headers)
        data: Any = None
        if isinstance(sent, bytes):
            headers.pop("Content-Type", None)
            data = aiohttp.FormData()
            data.add_field("purpose", "batch")
            data.add_field("file", sent, filename="calls.jsonl", content_type="application/jsonl")
        elif method == "POST":
            data = json.dumps(sent)
        address = self._server.at(path)
        options: dict[str, Any] = {"headers": headers, "proxy": self._server.proxy, "allow_redirects": False}
        options["params"] = sent if method == "GET" else None
        async with self._session.request(method, address, data=data, timeout=self._timeout, **options) as response:
            return response.status, await response.read()
