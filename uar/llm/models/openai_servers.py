"""The servers of the `openai` engine: where each is, whose turn it is, and how many calls each says it takes."""

import asyncio
import base64
import itertools
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from uar.errors import EngineError

PROBE_SECONDS = 2.0
LONGEST_REST = 30.0  # seconds that a server which does not answer is left alone
BAD_IN_A_ROW = 3  # faults after which a server that does answer is left alone too
log = logging.getLogger(__name__)


@dataclass(eq=False)
class Server:
    """One base URL. `shown`: the URL without credentials, for messages. `slots`: calls that it says it works on at a time.

    `flying`: calls that it has now; `faults`: in a row; `answered`: when it last sent a response of any status, `served`:
    one of use;
    `rests_until`: it is asked only where no other server can be; `closed_until`: it said that it takes no call before.
    `tried`: set once the first call that scores a text came back; `scores`: one of them was answered; `cannot_score`: the
    first one showed that none will be.
    """

    parts: SplitResult
    headers: dict[str, str]
    shown: str
    proxy: str | None
    slots: int | None = None
    flying: int = 0
    faults: int = 0
    down: bool = False
    turn: int = 0
    answered: float = 0.0
    served: float = 0.0
    rests_until: float = 0.0
    closed_until: float = 0.0
    tried: asyncio.Event | None = None
    scores: bool = False
    cannot_score: str = ""

    def at(self, path: str) -> str:
        """The URL of an endpoint such as /completions."""
        return urlunsplit(self.parts._replace(path=self.parts.path + path))

    def beside(self, path: str) -> str:
        """The URL of an endpoint outside the OpenAI interface, from the server's root."""
        return urlunsplit(self.parts._replace(path=self.parts.path.removesuffix("/v1"), query="")) + path

    def closed_for(self) -> float:
        """Seconds until it takes calls again, as it said itself."""
        return max(0.0, self.closed_until - time.monotonic())

    def rests_for(self) -> float:
        """Seconds for which others are asked rather. After a rest one call tries it; the others go on resting."""
        if not self.down:
            return 0.0
        return max(self.rests_until - time.monotonic(), LONGEST_REST if self.flying else 0.0)


class Servers:
    """Shares calls out: to the server with the fewest in relation to what it takes, of those that answered lately."""

    def __init__(self, base_urls: Sequence[str], key: str, backoff: float) -> None:
        urls = [base_urls] if isinstance(base_urls, str) else list(base_urls)
        if not urls:
            raise EngineError("llm.base_urls is empty; give the servers, such as llm.base_urls=[http://127.0.0.1:8000/v1]")
        self._secrets = {key, quote(key, safe=""), json.dumps(key)[1:-1]}
        self._all = [self._server(url, key) for url in urls]
        self._backoff = backoff
        self._turns = itertools.count(1)

    def __len__(self) -> int:
        return len(self._all)

    def _server(self, url: str, key: str) -> Server:
        """A user name and password in the URL go into the header; they and the key are kept for `hide`."""
        try:
            whole = urlsplit(url.strip())
            host, _ = whole.hostname, whole.port  # a port that is no number raises
        except ValueError:
            whole, host = urlsplit(""), None
        if not host or whole.scheme not in {"http", "https"}:
            shown = url.rpartition("@")[2]
            raise EngineError(f"llm.base_urls: {shown!r} is not the URL of a server, such as http://127.0.0.1:8000/v1")
        user, _, address = whole.netloc.rpartition("@")
        path = whole.path.rstrip("/")
        shown = urlunsplit((whole.scheme, address, path, "", ""))
        headers = {"Content-Type": "application/json"}
        if user:
            packed = base64.b64encode(unquote(user).encode()).decode()
            headers["Authorization"] = f"Basic {packed}"
            secret = user.partition(":")[2] or user
            self._secrets |= {packed, secret, unquote(secret)}
        elif key:
            headers["Authorization"] = f"Bearer {key}"
        self._secrets |= {whole.query, *(value for _, value in parse_qsl(whole.query))}
        proxies = {} if _is_loopback(host) or proxy_bypass(host) else getproxies()
        parts = whole._replace(netloc=address, path=path, fragment="")
        return Server(parts, headers, shown, proxies.get(whole.scheme) or proxies.get("all"))

    def hide(self, text: str) -> str:
        """A text without the key and passwords, whoever wrote it."""
        for secret in sorted(self._secrets - {""}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def next(self, failed: Server | None) -> Server:
        """Who is asked next, rather not the one that has just `failed` the call."""
        known = [server.slots for server in self._all if server.slots]
        usual = sum(known) / len(known) if known else 1.0
        server = min(
            self._all,
            key=lambda s: (s.closed_for(), s.rests_for(), s is failed, s.flying / (s.slots or usual), s.turn),
        )
        server.turn = next(self._turns)
        return server

    def others_are_well(self, server: Server) -> bool:
        return any(not other.down and not other.closed_for() for other in self._all if other is not server)

    def answered_since(self, moment: float) -> bool:
        """Whether any server sent a response after a moment of time.monotonic()."""
        return any(server.answered > moment for server in self._all)

    def served_since(self, moment: float) -> bool:
        """Likewise, a response that was of use."""
        return any(server.served > moment for server in self._all)

    def responds(self, server: Server) -> None:
        """A response came, of whatever status."""
        server.answered = time.monotonic()

    def serves(self, server: Server) -> None:
        """A response came that was of use."""
        if server.down and len(self) > 1:
            log.info("%s answers again", server.shown)
        server.faults, server.down, server.served = 0, False, time.monotonic()

    def fails(self, server: Server, problem: str, down: bool, pause: float) -> None:
        """A call failed at a server; `down`: it does not answer; `pause`: seconds for which it asked to be left alone."""
        now = time.monotonic()
        server.closed_until = max(server.closed_until, now + pause)
        if server.down and now < server.rests_until:
            return  # one of many calls that failed at once
        server.faults += 1
        if down or server.faults >= BAD_IN_A_ROW:
            if not server.down and len(self) > 1:
                log.warning("%s; calls go to the other servers first", problem)
            server.down = True
            server.rests_until = now + min(LONGEST_REST, self._backoff * 2 ** min(server.faults, 16))

    async def any_there(self, session: aiohttp.ClientSession) -> bool:
        """Whether a server responds to anything at all within a short time."""
        answers = await asyncio.gather(*(_get(session, s, s.at("/models")) for s in self._all))
        return any(answer is not None for answer in answers)

    async def served(self, session: aiohttp.ClientSession, model: str) -> dict[str, Any]:
        """What each server says of the model, by its URL: vLLM names its weights (`root`), others the owner or a date."""
        answers = await asyncio.gather(*(_get(session, s, s.at("/models")) for s in self._all))
        found = {server.shown: _entry(answer, model) for server, answer in zip(self._all, answers, strict=True)}
        return {url: entry for url, entry in found.items() if entry}

    async def report(self, session: aiohttp.ClientSession) -> int | None:
        """Ask the servers how many calls they work on at a time; the sum of what they say, None where none says it."""
        await asyncio.gather(*(_ask_slots(session, server) for server in self._all))
        return sum(server.slots or 0 for server in self._all) or None


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine, which a proxy elsewhere cannot reach."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _sglang(body: Any) -> Any:
    """SGLang's own limit a data-parallel rank, or else the option that it was started with."""
    states = body.get("internal_states") or []
    limits = [state.get("effective_max_running_requests_per_dp") for state in states]
    return sum(limits) if limits and None not in limits else body["max_running_requests"]


def _vllm(body: Any) -> Any:
    """vLLM tells its configuration in development mode only; newer versions of SGLang answer here as well."""
    if "vllm_config" not in body:
        return _sglang(body)
    config = body["vllm_config"]
    return config["scheduler_config"]["max_num_seqs"] * config["parallel_config"]["data_parallel_size"]


REPORTS: dict[str, Callable[[Any], Any]] = {
    "/props": lambda body: body["total_slots"],  # llama.cpp
    "/get_server_info": _sglang,
    "/info": lambda body: body["max_concurrent_requests"],  # TGI
    "/server_info?config_format=json": _vllm,
}


def _entry(answer: bytes | None, model: str) -> dict[str, Any]:
    """The model's own entry in a list of models, without what is no plain value."""
    try:
        entries = [entry for entry in json.loads(answer or b"")["data"] if entry["id"] == model]
        entry = entries[0] if entries else {}
        return {name: value for name, value in entry.items() if isinstance(value, str | int | float) and name != "created"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


async def _ask_slots(session: aiohttp.ClientSession, server: Server) -> None:
    answers = await asyncio.gather(*(_get(session, server, server.beside(path)) for path in REPORTS))
    for slots_in, answer in zip(REPORTS.values(), answers, strict=True):
        try:
            slots = slots_in(json.loads(answer or b""))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # another kind of server
        if isinstance(slots, int) and slots > 0:
            server.slots = slots
            return


async def _get(session: aiohttp.ClientSession, server: Server, url: str) -> bytes | None:
    """What a server responds, None where it does not. No redirection is followed: the key is for this server."""
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
    options: dict[str, Any] = {"headers": server.headers, "proxy": server.proxy, "allow_redirects": False}
    try:
        async with session.get(url, timeout=timeout, **options) as response:
            return await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
