"""Clients of the `openai` engine for tests, and servers that are none."""

import asyncio
import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from uar.llm.models import openai as openai_module
from uar.llm.models.openai import OpenAI
from uar.llm.record import Generate, Score

Connect = Callable[..., OpenAI]
HELLO = Generate((("user", "Say hello."),), max_tokens=8)
BEES = Score("Bees make honey.\n\nA question:", " what do bees make")


def chats(number: int) -> list[Generate]:
    return [Generate((("system", "Count."), ("user", f"number {n}")), max_tokens=5, temperature=0.5) for n in range(number)]


@contextlib.contextmanager
def clients(url: str) -> Iterator[Connect]:
    """Opens engines that ask `url`, unless told otherwise, and wait little between tries; all are closed at the end."""
    with contextlib.ExitStack() as opened:

        def connect(**options: object) -> OpenAI:
            engine = OpenAI(**({"model": "scripted", "base_urls": [url], "backoff": 0.01, "window": 64} | options))
            opened.callback(engine.close)
            return engine

        yield connect


def without_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that engines would have waited between tries; they wait none of them."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(openai_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return waits


@contextlib.contextmanager
def bare(reply: bytes | None) -> Iterator[str]:
    """The URL of a server that sends these bytes to whatever it is asked and hangs up; None: it says nothing at all."""
    ended = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            if reply is None:
                ended.wait(30)
            else:
                self.request.sendall(reply)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
        finally:
            ended.set()
            listening.shutdown()
            thread.join()


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """A URL at which nothing listens."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{dead.getsockname()[1]}/v1"
