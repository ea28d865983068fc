"""Runs the chains of many questions over one engine: each goes on as soon as its replies are there, whatever the others do.
What the store holds is not asked."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from uar.annotation.engines import Engine
from uar.annotation.record import Outcome, Record, Reply
from uar.annotation.stages import Annotator, Call, Judgement, Question
from uar.annotation.stages.annotator import Chain
from uar.annotation.store import Store
from uar.errors import UserError

JUDGE_RATE_FROM = 50  # calls before the failure rate may stop a run


@dataclass
class Progress:
    """What happened so far. `asked`: calls made now; `kept`: calls that the store answered; `outcomes`: of both."""

    asked: int = 0
    kept: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Record] = field(default_factory=list)
    tokens: Counter[str] = field(default_factory=Counter)


@dataclass
class _Running:
    question: Question
    chain: Chain
    calls: list[Call] = field(default_factory=list)
    replies: list[Reply | None] = field(default_factory=list)
    missing: int = 0


class Chains:
    """`engine=None` replays what the store holds; a question that would have to ask is left out."""

    def __init__(
        self,
        annotator: Annotator,
        store: Store,
        collection: str,
        model: str,
        engine: Engine | None,
        max_failure_rate: float = 0.05,
        on_call: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._annotator, self._store, self._engine = annotator, store, engine
        self._collection, self._model = collection, model
        self._max_failure_rate, self._on_call = max_failure_rate, on_call
        self.progress = Progress()
        self._tickets: dict[int, str] = {}
        self._waiting: dict[str, list[tuple[_Running, int]]] = {}  # key -> who waits for its reply
        self._next = 0

    def run(self, questions: Iterable[Question]) -> Iterator[tuple[str, list[Judgement]]]:
        """(query id, judgements) as questions end; one whose reply failed gives none."""
        self._store.ensure_loaded(self._collection, self._annotator.stages, self._model)
        coming, done = iter(questions), deque[tuple[str, list[Judgement]]]()
        window = self._engine.window if self._engine else 1
        exhausted = False
        while True:
            while not exhausted and len(self._waiting) < window:
                question = next(coming, None)
                if question is None:
                    exhausted = True
                else:
                    self._advance(_Running(question, self._annotator.chain(question)), done, first=True)
            while done:
                yield done.popleft()
            if self._engine is None or not self._waiting:
                if exhausted:
                    return
                continue
            for ticket, reply in self._engine.step():
                self._receive(self._tickets.pop(ticket), reply, done)
            self._stop_when_failing()

    def _advance(self, running: _Running, done: deque, first: bool = False) -> None:
        """Send a chain its replies, for as long as the store answers what it asks next."""
        while True:
            try:
                calls = next(running.chain) if first else running.chain.send([r for r in running.replies if r])
            except StopIteration as end:
                if end.value is not None:
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
        key = call.request.key(self._model)
        if key not in self._waiting:
            record = self._store.find(key)
            if record is not None:
                self._keep_copy(running, call, record)
                running.replies[at] = record.reply()
                return True
            if self._engine is None:
                return False
            self._tickets[self._next] = key
            self._engine.submit(self._next, call.request)
            self._next += 1
        self._waiting.setdefault(key, []).append((running, at))
        running.missing += 1
        return True

    def _receive(self, key: str, reply: Reply, done: deque) -> None:
        for nth, (running, at) in enumerate(self._waiting.pop(key)):
            call = running.calls[at]
            shared = reply if nth == 0 else Reply(reply.output, reply.outcome)  # the cost is counted once
            record = self._record(running, call, key, shared)
            self._store.append(record)
            self._count(record)
            self.progress.asked += nth == 0
            running.replies[at] = reply
            running.missing -= 1
            self._on_call(self.progress)
            if not running.missing:
                self._advance(running, done)

    def _record(self, running: _Running, call: Call, key: str, reply: Reply) -> Record:
        return Record(
            key=key,
            collection=self._collection,
            query_id=running.question.id,
            doc_ids=call.doc_ids,
            stage=call.stage,
            template=call.template,
            template_hash=call.template_hash,
            layout=call.layout,
            model=self._model,
            engine=self._engine.name if self._engine else "",
            output=reply.output,
            outcome=call.check(reply),
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            tokens_cached=reply.tokens_cached,
            seconds=round(reply.seconds, 6),
            time=time.time(),
        )

    def _keep_copy(self, running: _Running, call: Call, record: Record) -> None:
        """Count a kept call; where it was made for another question with the same text, keep it for this one too."""
        copy = self._record(running, call, record.key, Reply(record.output, record.reply().outcome))  # it cost nothing now
        if self._engine is not None and not self._store.holds(copy):
            self._store.append(copy)
        self.progress.kept += 1
        self._count(copy)
        self._on_call(self.progress)

    def _count(self, record: Record) -> None:
        self.progress.outcomes[record.outcome] += 1
        if record.outcome != Outcome.OK:
            self.progress.failures.append(record)
        for name in ("tokens_in", "tokens_out", "tokens_cached"):
            self.progress.tokens[name] += getattr(record, name)

    def _stop_when_failing(self) -> None:
        total, failed = self.progress.outcomes.total(), len(self.progress.failures)
        if total >= JUDGE_RATE_FROM and failed / total > self._max_failure_rate:
            counts = ", ".join(f"{n} {o}" for o, n in self.progress.outcomes.most_common())
            last = self.progress.failures[-1]
            raise UserError(
                f"{failed} of {total} calls failed ({counts}), more than max_failure_rate={self._max_failure_rate}; "
                f"the last: {last.stage} {last.outcome}: {last.output[:120]!r}. What was answered is kept; use a model that "
                "follows the format, or raise max_failure_rate"
            )
