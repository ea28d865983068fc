"""Runs the chains of many questions over the run's engines: each goes on as soon as its replies are there, whatever the
others do. What the store holds is not asked."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uar.llm.call import Asker, Call, Chain, Question
from uar.llm.costs.spending import Spending
from uar.llm.failing import stop_when_surely_failing
from uar.llm.models import LLM, Model
from uar.llm.pictured import check_shown
from uar.llm.progress import TOKENS, Counts, Progress
from uar.llm.record import Outcome, Record, Reply
from uar.llm.store.answers import answer
from uar.llm.store.store import Store

Ended = tuple[str, Any]  # question id, what its chain returned


@dataclass
class _Running:
    question: Question
    chain: Chain
    calls: list[Call] = field(default_factory=list)
    replies: list[Reply | None] = field(default_factory=list)
    missing: int = 0


class Chains:
    """`llms`: the models that calls name by their place. One without an engine replays what the store holds of it, failures
    included; a question that would have to ask does not end. `retry`: outcomes of kept replies, as they are read today, that
    are asked again, once; `error` is one of them always. `spending`: a call that might pass its limit is held until others
    came in for less; LimitReached where none is on its way. `failed`: ids of the questions whose chain ended with nothing."""

    def __init__(
        self,
        asker: Asker,
        store: Store,
        collection: str,
        llms: Sequence[LLM],
        max_failure_rate: float = 0.05,
        on_call: Callable[[Progress], None] = lambda progress: None,
        progress: Progress | None = None,
        retry: Collection[str] = (),
        spending: Spending | None = None,
    ) -> None:
        self._asker, self._store, self._llms = asker, store, llms
        self._collection = collection
        self._max_failure_rate, self._on_call = max_failure_rate, on_call
        self.progress = progress or Progress()
        self.failed: list[str] = []
        self._tickets: list[dict[int, str]] = [{} for _ in llms]  # number of a request in flight -> its key
        self._waiting: dict[str, list[tuple[_Running, int]]] = {}  # key -> who waits for its reply
        self._next = 0
        self._retry = {Outcome.ERROR, *retry}
        self._retried: set[str] = set()  # keys
        self._spending = spending
        self._held: deque[tuple[Model, Call, str]] = deque()  # with their keys

    def run(self, questions: Iterable[Question]) -> Iterator[Ended]:
        """(question id, result) as questions end with one."""
        coming, done = iter(questions), deque[Ended]()
        exhausted = False
        while True:
            while not exhausted and not self._held and len(self._waiting) < self._window:
                question = next(coming, None)
                if question is None:
                    exhausted = True
                else:
                    if question.image:
                        check_shown(question.id, self._asker, [llm.model for llm in self._llms if llm.model])
                    self._advance(_Running(question, self._asker.chain(question)), done, first=True)
            while done:
                yield done.popleft()
            self._send_held()
            if not self._waiting:
                if exhausted:
                    return
                continue
            for llm, tickets in zip(self._llms, self._tickets, strict=True):
                if tickets and llm.model:
                    for ticket, reply in llm.model.step():
                        self._receive(tickets.pop(ticket), reply, done)
            stop_when_surely_failing(self.progress, self._max_failure_rate)

    @property
    def _window(self) -> int:
        """Which an engine may change once it knows what is asked."""
        return max((llm.model.window for llm in self._llms if llm.model), default=1)

    def _advance(self, running: _Running, done: deque[Ended], first: bool = False) -> None:
        """Send a chain its replies, for as long as the store answers what it asks next."""
        while True:
            try:
                calls = next(running.chain) if first else running.chain.send([r for r in running.replies if r])
            except StopIteration as end:
                if end.value is None:
                    self.failed.append(running.question.id)
                else:
                    done.append((running.question.id, end.value))
                return
            first = False
            running.calls, running.replies, running.missing = calls, [None] * len(calls), 0
            if not all([self._lookup_or_submit(running, at) for at in range(len(calls))]):
                return
            if running.missing:
                return

    def _lookup_or_submit(self, running: _Running, at: int) -> bool:
        """False where the reply can never come, since there is no engine."""
        call = running.calls[at]
        llm = self._llms[call.llm]
        if llm.model is None:
            return self._take_kept(running, at, self._answer(call, llm))
        key = llm.asked(call.request).key(llm.name)
        if key not in self._waiting:
            if self._take_kept(running, at, self._kept(call, key, llm)):
                return True
            if self._spending and (self._held or not self._spending.fits(call.request, call.llm)):
                self._held.append((llm.model, call, key))
            else:
                self._send(llm.model, call, key)
        self._waiting.setdefault(key, []).append((running, at))
        running.missing += 1
        return True

    def _send(self, model: Model, call: Call, key: str) -> None:
        if self._spending:
            self._spending.sent(call.request, call.llm)
        self._tickets[call.llm][self._next] = key
        model.submit(self._next, call.request)
        self._next += 1

    def _send_held(self) -> None:
        while self._spending and self._held:
            model, call, key = self._held[0]
            if self._spending.fits(call.request, call.llm):
                self._held.popleft()
                self._send(model, call, key)
            elif any(self._tickets):
                return
            else:
                raise self._spending.reached(call.request, call.llm)

    def _take_kept(self, running: _Running, at: int, record: Record | None) -> bool:
        """Whether there is a record, whose reply is then that of the call."""
        if record is not None:
            self._count_kept(running, running.calls[at], record)
            running.replies[at] = record.reply()
        return record is not None

    def _kept(self, call: Call, key: str, llm: LLM) -> Record | None:
        """What the store answers, unless that is a failure that is asked again."""
        record = self._answer(call, llm)
        if record is not None and key not in self._retried and call.check(record.reply()) in self._retry:
            self._retried.add(key)
            return None
        return record

    def _answer(self, call: Call, llm: LLM) -> Record | None:
        held, commit = llm.held(call.request), llm.commit
        return answer(self._store, call.request, llm.name, lambda kept: call.check(kept.reply()), held, commit)

    def _receive(self, key: str, reply: Reply, done: deque[Ended]) -> None:
        for nth, (running, at) in enumerate(self._waiting.pop(key)):
            call = running.calls[at]
            shared = reply if nth == 0 else Reply(reply.output, reply.outcome)  # the cost is counted once
            llm = self._llms[call.llm]
            record = self._record(running, call, llm.asked(call.request).key_of(llm.name, reply.outcome), shared)
            if nth == 0:
                self._store.append(record)
                if self._spending:
                    self._spending.came(call.request, reply, call.llm)
            self._count_asked(call, record, shared, first=nth == 0)
            running.replies[at] = reply
            running.missing -= 1
            self._on_call(self.progress)
            if not running.missing:
                self._advance(running, done)

    def _record(self, running: _Running, call: Call, key: str, reply: Reply) -> Record:
        llm = self._llms[call.llm]
        return Record(
            key=key,
            collection=self._collection,
            query_id=running.question.id,
            doc_ids=call.doc_ids,
            stage=call.stage,
            template=call.template,
            template_hash=call.template_hash,
            layout=call.layout,
            model=llm.shown,
            engine=llm.model.name if llm.model else "",
            output=reply.output,
            outcome=call.check(reply),
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            tokens_cached=reply.tokens_cached,
            seconds=round(reply.seconds, 6),
            time=time.time(),
        )

    def _count_kept(self, running: _Running, call: Call, record: Record) -> None:
        """Count a call that the store answers: it costs nothing now."""
        reply = record.reply()
        outcome = call.check(reply)
        stage = self._count(call, reply, outcome)
        if outcome != Outcome.OK:
            self.progress.failures.append(self._record(running, call, record.key, Reply(reply.output, reply.outcome)))
        stage.kept += 1
        _add(stage.kept_tokens, stage.kept_further, call, reply)
        self._on_call(self.progress)

    def _count_asked(self, call: Call, record: Record, reply: Reply, first: bool) -> None:
        """Count a call that an engine answered, or that waited for the same answer as the `first`."""
        stage = self._count(call, reply, record.outcome)
        if record.outcome != Outcome.OK:
            self.progress.failures.append(record)
        stage.asked += first
        if first and not reply.tokens_in and reply.outcome != Outcome.ERROR:
            stage.notes["replies_without_tokens"] += 1
        stage.seconds += record.seconds
        _add(stage.tokens, stage.further, call, reply)

    def _count(self, call: Call, reply: Reply, outcome: str) -> Counts:
        stage = self.progress.stage(call.stage)
        stage.outcomes[outcome] += 1
        if call.notes and outcome == Outcome.OK:
            stage.notes.update(call.notes(reply))
        self.progress.calls += 1
        return stage


def _add(tokens: Counter[str], further: Mapping[int, Counter[str]], call: Call, reply: Reply) -> None:
    """Count the tokens of a reply, of models from the second on among the `further` ones too."""
    for name in TOKENS:
        tokens[name] += getattr(reply, name)
        if call.llm:
            further[call.llm][name] += getattr(reply, name)
