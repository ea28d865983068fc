"""The attempts that the `openai` engine makes of a call: which faults are passing, and how long it waits before the next."""

import math
import random
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from uar.llm.models.openai_servers import Server, Servers

LIMIT_WAIT = 8  # times `backoff`: the first wait where a server limits its rate and says no time; limits hold for a minute
LONGEST_LIMIT_WAIT = 60.0


class Fault(Exception):
    """An attempt that may be made again. `down`: nothing answers there; `late`: it took longer than allowed; `limited`: the
    server limits its rate; `pause`: the seconds after which the server takes calls again, as it says; `tokens`: that it took
    all the same."""

    def __init__(
        self,
        problem: str,
        down: bool = False,
        late: bool = False,
        limited: bool = False,
        pause: float = 0.0,
        tokens: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(problem)
        self.down, self.late, self.limited, self.pause, self.tokens = down, late, limited, pause, tokens or {}


class Tries:
    """Of one call. `failed`: the server of the last attempt; `wait`: seconds until the next; `number`: of attempts, those that
    another server took over at once aside; `before`: when the last failure but one came; `tokens`: that all took."""

    def __init__(self, servers: Servers, retries: int, backoff: float) -> None:
        self._servers, self._retries, self._backoff = servers, retries, backoff
        self.failed: Server | None = None
        self.wait = 0.0
        self.number = 0
        self.before = self._last = time.monotonic()
        self.tokens: Counter[str] = Counter()
        self._counted = self._moves = 0

    def go_on(self, server: Server, fault: Fault) -> bool:
        """Take in that an attempt failed: whether another one is made."""
        self.failed = server
        self.tokens.update(fault.tokens)
        if fault.limited and not fault.pause:
            least = min(LONGEST_LIMIT_WAIT, LIMIT_WAIT * self._backoff * 2 ** min(self.number, 16))
            fault.pause = least * random.uniform(1.0, 1.5)  # noqa: S311 jitter, as below
        self._servers.fails(server, str(fault), fault.down, fault.pause)
        self.before, self._last = self._last, time.monotonic()
        others = self._moves < len(self._servers) - 1 and self._servers.others_are_well(server)
        if (fault.down or fault.pause) and others:
            self._moves, self.wait = self._moves + 1, 0.0  # another server takes over at once
            return True
        self.number, self._moves = self.number + 1, 0
        self._counted = 0 if fault.limited and self._servers.served_since(self.before) else self._counted + 1
        doubled = self._backoff * 2 ** max(0, self._counted - 1)
        self.wait = doubled * random.uniform(0.5, 1.5)  # noqa: S311 jitter, no result depends on it
        return self._counted <= self._retries


def retry_after(response: aiohttp.ClientResponse) -> float:
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
