"""The `openai_batch` engine: calls go in files to a server that answers them within a day, for half the price."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from uar.errors import EngineError
from uar.llm.models.batch_jobs import Job, begin_job, kept_jobs
from uar.llm.models.batch_lines import call_line, parts_of, reply_of, results_in
from uar.llm.models.batch_server import BatchServer, NotThere, TooLarge
from uar.llm.models.model import Model
from uar.llm.models.openai import OpenAI
from uar.llm.models.openai_bodies import adapted, body_of, checked_constrain, holds
from uar.llm.record import Generate, Outcome, Reply, Request, Score
from uar.storage.locks import alone

log = logging.getLogger(__name__)
LOCK = "batches.lock"
ENDED = ("completed", "failed", "expired", "cancelled")
Line = tuple[str, bytes]


class Given(list[tuple[int, Reply]]):
    """Replies of a batch. Once the caller has gone through all of them, and so kept them, the batch is forgotten."""

    def __init__(self, replies: Sequence[tuple[int, Reply]], job: Job, names: Sequence[str]) -> None:
        super().__init__(replies)
        self._job, self._names = job, set(names)

    def __iter__(self) -> Iterator[tuple[int, Reply]]:
        yield from super().__iter__()
        self._job.took(self._names)


class OpenAIBatch(Model):
    """A server with OpenAI's batch interface (`/files`, `/batches`). Calls that are submitted together go in one file, of at
    most `max_requests` calls and `max_bytes` bytes; where the server finds a file too large, it is halved. `max_batches`:
    batches that are there at a time, where the server limits what it queues; None: any number. Every `poll` seconds they are
    looked at.

    What was begun is remembered in `folder`, so that a run that was killed while it waited goes on with the same batches and
    asks nothing twice. A call of a batch that expired, was cancelled or failed in part, and has no answer there, is a failure
    of outcome `error`, which the next run asks again. A batch that the server refuses whole is an EngineError.

    `window`: calls that are gathered before they are sent. `price_factor`: what a call costs of `price.input`, `cached` and
    `output`. Other options are those of `OpenAI`; records are the same, so that either finishes what the other began.
    """

    name = "openai_batch"
    steady = False
    takes_images = True

    def __init__(
        self,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        folder: str = "annotations/batches",
        revision: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        window: int = 20_000,
        max_requests: int = 50_000,
        max_bytes: int = 200_000_000,
        max_batches: int | None = None,
        poll: float = 30.0,
        completion_window: str = "24h",
        timeout: float = 600.0,
        retries: int = 8,
        backoff: float = 1.0,
        constrain: bool | str | None = None,
        max_tokens_field: str = "max_tokens",
        extra: Mapping[str, Any] | None = None,
        price_factor: float = 0.5,
    ) -> None:
        counts = {"window": window, "max_requests": max_requests, "max_bytes": max_bytes, "max_batches": max_batches or 1}
        odd = next((name for name, value in counts.items() if value < 1), None)
        if odd or timeout <= 0 or retries < 0 or backoff < 0 or poll < 0 or not 0 <= price_factor <= 1:
            raise EngineError(
                f"llm=openai_batch: {odd or 'timeout, retries, backoff, poll or price_factor'} is out of range: window, "
                "max_requests, max_bytes and max_batches from 1, timeout above 0, retries, backoff and poll from 0, "
                "price_factor from 0 to 1"
            )
        self._constrain = checked_constrain(constrain)
        self.model, self.window, self._folder = model, window, Path(folder)
        self._most, self._most_bytes, self._most_batches, self._poll = max_requests, max_bytes, max_batches, poll
        self._max_tokens_field, self._extra = max_tokens_field, dict(extra or {})
        self._server = BatchServer(base_url, api_key_env, timeout, retries, backoff, completion_window)
        self._asked: dict[str, tuple[Request, list[int]]] = {}  # by name, with the numbers that wait for it
        self._unsent: dict[str, bytes] = {}  # lines by name
        self._open: list[Job] = []
        self._failed: list[tuple[int, Reply]] = []

    @classmethod
    def identity(cls, config: Mapping[str, Any]) -> str:
        return OpenAI.identity(config)

    @classmethod
    def gpus(cls, config: Mapping[str, Any]) -> float | None:
        return None

    @classmethod
    def price_factor(cls, config: Mapping[str, Any]) -> float:
        return float(config.get("price_factor", 0.5))

    def holds(self, request: Generate) -> bool:
        return holds(request, self._constrain)

    def submit(self, ticket: int, request: Request) -> None:
        if isinstance(request, Score):
            raise EngineError(
                "llm=openai_batch cannot score a text; use an annotator that writes or chooses, such as pointwise or utilsel, "
                "or a server that gives log-likelihoods of a prompt (llm=openai)"
            )
        _, body = body_of(request, self.model, self._constrain)
        name, line = call_line(adapted(body, self._max_tokens_field, self._extra))
        if name in self._asked:
            self._asked[name][1].append(ticket)
            return
        self._asked[name] = request, [ticket]
        self._unsent[name] = line

    def step(self) -> list[tuple[int, Reply]]:
        if not self._asked:
            return []
        self._go_on_with_kept()
        while True:
            self._send()
            if self._failed:
                failed, self._failed = self._failed, []
                return failed
            for job in list(self._open):
                if (replies := self._replies(job)) is not None:
                    self._open.remove(job)
                    if replies:
                        return replies
                    break  # it is gone, and its calls are sent anew
            else:
                time.sleep(self._poll)

    def close(self) -> None:
        for job in self._open:
            log.info("Batch %s goes on at the server; the same command fetches it", job.batch)
        self._open = []
        self._server.close()

    def _go_on_with_kept(self) -> None:
        """Batches of earlier runs that hold calls which are asked now."""
        for job in self._open:  # which may hold calls that are asked only now
            for name in job.waiting:
                self._unsent.pop(name, None)
        if self._unsent and self._folder.is_dir():
            with alone(self._folder / LOCK):
                self._open += self._kept()

    def _kept(self) -> Iterator[Job]:
        ours = {job.path for job in self._open}
        for job in kept_jobs(self._folder, self._server.shown, self.model):
            wanted = [name for name in job.waiting if name in self._unsent]
            if not wanted or job.path in ours:
                continue
            if not job.batch:  # killed between the file and the batch, or before the answer came
                job.batch = self._server.begun_of(job.file) or self._server.begin(job.file)
                job.keep()
            log.info("Batch %s of an earlier run has %d of the calls: it goes on", job.batch, len(wanted))
            for name in wanted:
                del self._unsent[name]
            yield job

    def _send(self) -> None:
        """Begin batches of what is not sent yet."""
        while self._unsent and (self._most_batches is None or len(self._open) < self._most_batches):
            self._begin(next(parts_of(list(self._unsent.items()), self._most, self._most_bytes)))

    def _begin(self, part: Sequence[Line]) -> None:
        names = [name for name, _ in part]
        try:
            file = self._server.upload(b"".join(line for _, line in part))
        except TooLarge as error:
            self._halve(part, str(error))
            return
        with alone(self._folder / LOCK):  # another process would begin a batch that it finds without a name
            job = begin_job(self._folder, self._server.shown, self.model, names, file)
            for name in names:
                del self._unsent[name]
            job.batch = self._server.begin(file)
            job.keep()
        self._open.append(job)
        log.info("Batch %s of %d calls is at %s", job.batch, len(names), self._server.shown)

    def _halve(self, part: Sequence[Line], why: str) -> None:
        if len(part) == 1:
            ((name, _),) = part
            del self._unsent[name]
            _, tickets = self._asked.pop(name)
            self._failed += [(ticket, Reply(f"the server {why}", Outcome.ERROR)) for ticket in tickets]
            return
        self._most = (len(part) + 1) // 2
        log.info("The server finds a file of %d calls too large: files have at most %d from now on", len(part), self._most)

    def _replies(self, job: Job) -> list[tuple[int, Reply]] | None:
        """Of a batch that has ended, empty where the server no longer has it; None while it works."""
        try:
            return self._looked(job)
        except NotThere:
            log.warning("The server has no batch %s any more, or not its replies: its calls are sent anew", job.batch)
            job.path.unlink(missing_ok=True)
            self._again(job.waiting)
            return []

    def _looked(self, job: Job) -> list[tuple[int, Reply]] | None:
        said = self._server.look(job.batch)
        status, counts = str(said.get("status")), said.get("request_counts") or {}
        told = f"{status}, {counts.get('completed', 0)} of {counts.get('total', '?')} answered"
        if told != job.told:
            log.info("Batch %s: %s", job.batch, told)
            job.told = told
        if status not in ENDED:
            return None
        files = [str(f) for kind in ("output_file_id", "error_file_id") if (f := said.get(kind))]
        if status == "failed" and not files:
            return self._refused(job, said)
        rows: dict[str, dict[str, Any]] = {}
        for file in files:
            rows = results_in(self._server.content(file)) | rows
        names = [name for name in job.waiting if name in self._asked]
        found = []
        for name in names:
            request, tickets = self._asked.pop(name)
            reply = reply_of(request, rows.get(name), status, self._constrain)
            found += [(t, reply if at == 0 else Reply(reply.output, reply.outcome)) for at, t in enumerate(tickets)]
        return Given(found, job, names)

    def _refused(self, job: Job, said: Mapping[str, Any]) -> list[tuple[int, Reply]]:
        """A file that the server does not work on at all: halved where it is too large, else an error of the run."""
        listed = (said.get("errors") or {}).get("data") or []
        why = (
            "; ".join(f"{e.get('code')}: {e.get('message')}" for e in listed if isinstance(e, dict))[:300] or "no reason told"
        )
        job.path.unlink(missing_ok=True)
        names = [name for name in job.waiting if name in self._asked]
        large = any(word in why.lower() for word in ("too_large", "too large", "too_many", "too many", "file_size"))
        if large and len(names) > 1:
            self._most = (len(names) + 1) // 2
            log.info("The server refuses a batch of %d calls (%s): at most %d from now on", len(names), why, self._most)
            self._again(names)
            return []
        self._open.remove(job)
        raise EngineError(
            f"llm=openai_batch: {self._server.shown} refused batch {job.batch}: {why}; mend it (llm.model, llm.extra), or "
            "lower llm.max_requests and set llm.max_batches=1 where it limits what it queues. Nothing of it was asked"
        )

    def _again(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._asked:
                _, body = body_of(self._asked[name][0], self.model, self._constrain)
                self._unsent[name] = call_line(adapted(body, self._max_tokens_field, self._extra))[1]
