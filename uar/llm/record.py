"""What is asked of an LLM, what it replied, and the record that is kept of it."""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

from uar.llm.pictured import image_keys, images_of
from uar.llm.thinking import without_thinking
from uar.storage.files import Canonical, Encoded, digest

THINK_START, THINK_END = "<think>", "</think>"
BY_CONTENT = re.compile(r"^.*@(?=[0-9a-f]{12}(?:[~+]|$))", re.DOTALL)
FILES_BESIDE = re.compile(r"(?<=@[0-9a-f]{12})~[0-9a-f]{8}$")
COMMIT = re.compile(r"=([0-9a-f]{40})$")


class Outcome(StrEnum):
    """What became of a call. Everything but `ok` is a failure, is listed, and never becomes a label."""

    OK = "ok"
    EMPTY = "empty"
    OUT_OF_RANGE = "out_of_range"
    UNPARSABLE = "unparsable"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    ERROR = "error"


Messages = tuple[tuple[str, str], ...]  # (role, content), which is `Pictured` where an image is shown with it


Images = tuple[tuple[int, str], ...]  # see `image_keys`


class _Shown(NamedTuple):
    """What keys have of the messages of a call."""

    texts: Canonical
    images: Images


def _of_the_last(make: Callable[[Messages], _Shown]) -> Callable[[Messages], _Shown]:
    """Remembers what it made last: the keys of a call are asked for one after another, and comparing long messages, as
    `lru_cache` does, costs more than a key."""
    last: list[tuple[Messages | None, _Shown]] = [(None, _Shown(Canonical(()), ()))]

    def made(messages: Messages) -> _Shown:
        known, shown = last[0]
        if known is not messages:
            shown = make(messages)
            last[0] = messages, shown
        return shown

    return made


@_of_the_last
def _shown(messages: Messages) -> _Shown:
    return _Shown(Canonical(messages), tuple(image_keys(messages)))


@cache
def weights_of(model: str) -> str:
    """What of a model's name tells its replies apart: where that has a hash of its files, not what the folder is called."""
    return BY_CONTENT.sub("@", model)


class Keyed(ABC):
    """A request. Records of it are found by keys that depend on what changes the reply.

    Earlier versions put the name of a model's folder into the key, not the files beside its weights (`~` in names), and the
    limit of a reply that ended before it. What they kept is found as well: where a newer record says more, the newer counts.
    """

    @abstractmethod
    def parts(self, model: str) -> tuple[Any, ...]:
        """What the key of this very call is made of."""

    def earlier_parts(self, model: str) -> tuple[Any, ...]:
        """What it was made of in earlier versions."""
        return self.parts(model)

    def key(self, model: str) -> str:
        return digest(*self.parts(weights_of(model)))

    def key_of(self, model: str, outcome: Outcome) -> str:
        """What a reply is kept under that the engine gave with this outcome."""
        return self.key(model)

    def keys(self, model: str) -> list[str]:
        """Under which of this version records may be kept."""
        return [self.key(model)]

    def earlier_keys(self, model: str) -> list[str]:
        return [digest(*self.earlier_parts(name)) for name in dict.fromkeys((model, FILES_BESIDE.sub("", model)))]

    def answered_by(self, record: "Record") -> bool:
        """Whether a kept reply is one to this call."""
        return True

    def as_given(self, record: "Record", model: str) -> "Record":
        """A kept reply with its end as the engine gave it."""
        return record


@dataclass(frozen=True)
class Generate(Keyed):
    """Write text after a chat.

    `pattern`: a regular expression that the whole reply follows, where the engine can hold it to one. `sample`: which of
    several samples this is, the seed where `temperature` is above 0. `reasoning`: whether a model that thinks does so first
    (None: as its chat template has it), within `reasoning_tokens` on top of `max_tokens`. `until`: a regular expression; once
    the reply begins as it says, its thinking left out, what follows is of no use, and an engine that can ends it there. What
    it matches it matches whatever follows.
    """

    messages: Messages
    max_tokens: int
    temperature: float = 0.0
    pattern: str | None = None
    sample: int = 0
    reasoning: bool | None = None
    reasoning_tokens: int = 0
    until: str | None = None

    def chat(self) -> list[dict[str, str]]:
        return as_chat(self.messages)

    @property
    def limit(self) -> int:
        return self.max_tokens + self.reasoning_tokens

    def parts(self, model: str) -> tuple[Any, ...]:
        return self._parts(model, held=self.pattern or None, until=self.until)

    def earlier_parts(self, model: str) -> tuple[Any, ...]:
        return self._parts(model, pattern=self.pattern)

    def _parts(self, model: str, **more: Any) -> tuple[Any, ...]:
        texts, images = _shown(self.messages)
        own = (self.sample, self.reasoning, images)
        last = _last(self.max_tokens, float(self.temperature), *own, reasoning_tokens=self.reasoning_tokens, **more)
        return "generate", model, texts, last

    def key_of(self, model: str, outcome: Outcome) -> str:
        """A reply that ended by itself is the same under every limit that it fits in; of one that was cut off the limit is a
        part."""
        return self.key(model) if outcome == Outcome.TRUNCATED else self._ended_key(model)

    def keys(self, model: str) -> list[str]:
        """A reply that nothing ended early begins with one that `until` ended: it answers too, the other way round not."""
        whole = [] if self.until is None else replace(self, until=None).keys(model)
        return [self._ended_key(model), self.key(model), *whole]

    def answered_by(self, record: "Record") -> bool:
        """An error may have cost several attempts."""
        return record.tokens_out <= self.limit or record.outcome == Outcome.ERROR

    def as_given(self, record: "Record", model: str) -> "Record":
        """One that was cut off at the limit is kept as a good one where it could be read."""
        full = record.outcome == Outcome.OK and record.tokens_out >= self.limit
        cut = full and record.key in {self.key(model), replace(self, until=None).key(model)}
        return replace(record, outcome=Outcome.TRUNCATED) if cut else record

    def _ended_key(self, model: str) -> str:
        texts, images = _shown(self.messages)
        own = (self.sample, self.reasoning, images)
        last = _last(None, float(self.temperature), *own, pattern=self.pattern, until=self.until)
        return digest("generate to the end", weights_of(model), texts, last)


@lru_cache(maxsize=1_024, typed=True)
def _last(
    max_tokens: int | None, temperature: float, sample: int, reasoning: bool | None, images: Images, **more: Any
) -> Encoded:
    """What the key of a `Generate` ends with, which is the same for many calls: its options, where they say something. Without
    a limit the key is that of a reply that ended by itself."""
    options = {"sample": sample, "reasoning": reasoning, "images": images, **more}
    said = {name: value for name, value in options.items() if value not in (None, 0, ()) or value is False}
    if max_tokens is None:
        return Encoded.of(temperature, said)
    return Encoded.of(max_tokens, temperature, *([said] if said else []))


@dataclass(frozen=True)
class Score(Keyed):
    """Log-likelihood of `target` after `prefix`, both plain text; `target` starts with a space or on a new line, so
    that the two tokenise apart as they do together."""

    prefix: str
    target: str

    def parts(self, model: str) -> tuple[Any, ...]:
        return "score", model, self.prefix, self.target


@dataclass(frozen=True)
class Choose(Keyed):
    """Log-likelihood of each of `choices`, one token each, as the first token of the assistant's turn after a chat.

    `reasoning`: as in `Generate`; a model that thinks must be told not to, or its first token opens its thoughts.
    """

    messages: Messages
    choices: tuple[str, ...]
    reasoning: bool | None = None

    def chat(self) -> list[dict[str, str]]:
        return as_chat(self.messages)

    def parts(self, model: str) -> tuple[Any, ...]:
        texts, images = _shown(self.messages)
        return "choose", model, texts, self.choices, self.reasoning, *([images] if images else [])


Request = Generate | Score | Choose


def without_pattern(request: Request) -> Request:
    """As an engine is asked that holds no reply to a pattern."""
    return replace(request, pattern=None) if isinstance(request, Generate) and request.pattern else request


def without_until(request: Request) -> Request:
    """As an engine is asked that ends no reply early."""
    return replace(request, until=None) if isinstance(request, Generate) and request.until else request


def shown_images(request: Request) -> int:
    """How many images a call shows."""
    return 0 if isinstance(request, Score) else len(images_of(request.messages))


def as_chat(messages: Messages) -> list[dict[str, str]]:
    """The texts of messages as chat templates and servers take them."""
    return [{"role": role, "content": str(content)} for role, content in messages]


@dataclass(frozen=True)
class Reply:
    """`output`: the raw text, thinking included; for `Score` a JSON object {"logprob": sum in nat, "tokens": target
    tokens}; for `Choose` {"logprobs": {choice: log-likelihood in nat}, "mass": probability of all choices together}, in older
    records the first of these alone."""

    output: str
    outcome: Outcome = Outcome.OK
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    seconds: float = 0.0

    @staticmethod
    def of_score(logprob: float, tokens: int, **usage: Any) -> "Reply":
        return Reply(json.dumps({"logprob": round(logprob, 6), "tokens": tokens}), **usage)

    @staticmethod
    def of_choices(logprobs: Mapping[str, float], mass: float | None = None, **usage: Any) -> "Reply":
        """`mass`: where it is not the sum over all choices, since some are not known but for a bound."""
        if mass is None:
            mass = sum(math.exp(min(value, 0.0)) for value in logprobs.values())
        rounded = {choice: round(value, 6) for choice, value in logprobs.items()}
        return Reply(json.dumps({"logprobs": rounded, "mass": round(mass, 6)}), **usage)

    @cached_property
    def text(self) -> str:
        """The reply without the thinking before it, see `without_thinking`; empty where that never ends."""
        return without_thinking(self.output)

    def choice_logprobs(self) -> dict[str, float]:
        """Nat a choice."""
        kept = json.loads(self.output)
        return {str(choice): float(value) for choice, value in kept.get("logprobs", kept).items()}

    def choice_mass(self) -> float | None:
        """Probability that the reply begins with any of the choices; None where an older record does not say it."""
        mass = json.loads(self.output).get("mass")
        return None if mass is None else float(mass)

    def target_logprob(self) -> tuple[float, int]:
        """Of a target: sum in nat, tokens."""
        value = json.loads(self.output)
        return float(value["logprob"]), int(value["tokens"])

    def mean_logprob(self) -> float:
        """Nat a target token."""
        logprob, tokens = self.target_logprob()
        return logprob / max(1, tokens)


@dataclass(frozen=True)
class Record:
    """One call. `key`: see `Keyed`; `doc_ids` stand in the order shown. `model`: its name, and after `=` the commit on the hub
    that the engine loaded, where there is one."""

    key: str
    collection: str
    query_id: str
    doc_ids: tuple[str, ...]
    stage: str
    template: str
    template_hash: str
    layout: str
    model: str
    engine: str
    output: str
    outcome: str
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    seconds: float = 0.0
    time: float = 0.0

    def identity(self) -> tuple[str, str, str, tuple[str, ...]]:
        """What makes two records the same one."""
        return self.key, self.collection, self.query_id, self.doc_ids

    def is_of(self, commit: str | None) -> bool:
        """Whether it may be of the weights of this commit; None: of any."""
        found = COMMIT.search(self.model)
        return commit is None or found is None or found[1] == commit

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_row(row: dict[str, Any]) -> "Record":
        return Record(**{**row, "doc_ids": tuple(row["doc_ids"])})

    def reply(self) -> Reply:
        """The reply as the engine gave it: what a parser once made of it is left to today's parser. A refusal stays one,
        since the server may have said so beside the text."""
        return self._reply

    @cached_property
    def _reply(self) -> Reply:
        outcome = Outcome(self.outcome)
        if outcome not in {Outcome.TRUNCATED, Outcome.ERROR, Outcome.REFUSED}:
            outcome = Outcome.OK
        return Reply(self.output, outcome, self.tokens_in, self.tokens_out, self.tokens_cached, self.seconds)
