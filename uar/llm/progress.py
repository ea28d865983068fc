"""What happened to the calls of a run so far, by stage."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from uar.llm.record import Record

TOKENS = ("tokens_in", "tokens_out", "tokens_cached")


def _by_model() -> defaultdict[int, Counter[str]]:
    return defaultdict(Counter)


@dataclass
class Counts:
    """`asked`: calls made now; `kept`: calls that the store answered; `outcomes` and `notes` (see `Call`): of both; `tokens`:
    of the calls made now (in, out, cached); `kept_tokens`: of the others when they were made; `further` and `kept_further`:
    those of both that are of the models from the second on, by their number; `seconds`: that the calls made now took, each."""

    asked: int = 0
    kept: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    kept_tokens: Counter[str] = field(default_factory=Counter)
    further: defaultdict[int, Counter[str]] = field(default_factory=_by_model)
    kept_further: defaultdict[int, Counter[str]] = field(default_factory=_by_model)
    seconds: float = 0.0

    def add(self, other: "Counts") -> None:
        self.asked += other.asked
        self.kept += other.kept
        self.seconds += other.seconds
        for name in ("outcomes", "notes", "tokens", "kept_tokens"):
            getattr(self, name).update(getattr(other, name))
        for name in ("further", "kept_further"):
            for llm, tokens in getattr(other, name).items():
                getattr(self, name)[llm].update(tokens)


@dataclass
class Progress:
    """What happened so far, by stage, and the calls that failed. `calls`: all of them, kept ones too."""

    calls: int = 0
    stages: dict[str, Counts] = field(default_factory=dict)
    failures: list[Record] = field(default_factory=list)

    @property
    def total(self) -> Counts:
        total = Counts()
        for counts in self.stages.values():
            total.add(counts)
        return total

    def stage(self, name: str) -> Counts:
        return self.stages.setdefault(name, Counts())

    def add(self, other: "Progress") -> None:
        self.calls += other.calls
        for name, counts in other.stages.items():
            self.stage(name).add(counts)
        self.failures.extend(other.failures)


def joined(parts: Iterable[Progress]) -> Progress:
    """What happened in several pieces of work together."""
    total = Progress()
    for part in parts:
        total.add(part)
    return total
