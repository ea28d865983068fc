"""How many calls a second the `openai` engine makes on one core, and what memory it keeps.

    python benchmarks/openai_client.py [calls=20000] [passages=16] [window=64]

The scripted server answers at once, in a process and on a core of its own; the client has another. What limits is the one
of the two whose CPU seconds come near those that passed.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import sys
import time
from multiprocessing.connection import Connection
from typing import cast

from command_line import called

from uar.llm.models.openai import OpenAI
from uar.llm.record import Generate, Outcome

BODY = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"scripted","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"My selection:[[2],[5]]"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":512,'
    b'"total_tokens":524,"completion_tokens":12,"prompt_tokens_details":{"cached_tokens":128}}}'
)
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
TEXT = "Bees make honey from the nectar that they gather on warm days in spring, and keep it in the comb through winter. "
log = logging.getLogger("benchmark")


class Scripted(asyncio.Protocol):
    """Reads no more of a request than its length, to be light beside the client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = int(self.buffer[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.transport.write(RESPONSE)


def serve(told: Connection, core: int | None) -> None:
    """Serve until a word comes; the port is told first, the CPU seconds last."""
    pin(core)
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Scripted, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, told.recv)

    asyncio.run(main())
    told.send(cpu_seconds())


def pin(core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_mib() -> float:
    """Resident memory now, or, where the system does not tell it, at most so far."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def chat(number: int, passages: int) -> Generate:
    """A chat that shows short passages, no two chats the same."""
    turns = [("user", "I have passages, each marked with a number."), ("assistant", "Please send them.")]
    for n in range(1, passages + 1):
        start = (number * passages + n) % len(TEXT)
        turns.append(("user", f"[{n}] {number} {TEXT[start:]}{TEXT[:start]}"))
        turns.append(("assistant", f"Noted passage [{n}]."))
    return Generate((*turns, ("user", "Reply in this form: My selection:[[i],[j],...]")), max_tokens=100)


def main(calls: int = 20_000, passages: int = 16, window: int = 64) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    mine, other = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, other), daemon=True)
    server.start()
    pin(mine)  # before the engine starts its thread
    engine = OpenAI("scripted", [f"http://127.0.0.1:{ours.recv()}/v1"], window=window, retries=0)
    sent, done, used, start = 0, 0, cpu_seconds(), time.perf_counter()
    while done < calls:
        while sent < calls and sent - done < window:
            engine.submit(sent, chat(sent, passages))
            sent += 1
        for _, reply in engine.step():
            assert reply.outcome == Outcome.OK, reply
            done += 1
            if done in (10_000, calls):
                log.info("%d calls: %.1f MiB resident", done, rss_mib())
    seconds, used = time.perf_counter() - start, cpu_seconds() - used
    engine.close()
    ours.send("end")
    served = ours.recv()
    log.info("%.0f calls/s: %d calls in %.1f s", calls / seconds, calls, seconds)
    log.info("client %.1f CPU s (%.0f calls a CPU second), server %.1f CPU s", used, calls / used, served)
    server.join()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    called(main)
