"""What is asked of an LLM, what it replied, and the record that is kept of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from uar.llm.thinking import without_thinking
from uar.storage.files import digest

THINK_START, THINK_END = "<think>", "</think>"


class Outcome(StrEnum):
    """What became of a call. Everything but `ok` is a failure, is listed, and never becomes a label."""

    OK = "ok"
    EMPTY = "empty"
    OUT_OF_RANGE = "out_of_range"
    UNPARSABLE = "unparsable"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    ERROR = "error"


Messages = tuple[tuple[str, str], ...]  # (role, content)


@dataclass(frozen=True)
class Generate:
    """Write text after a chat.

    `pattern`: a regular expression that the whole reply follows, where the engine can hold it to one. `sample`: which of
    several samples this is, the seed where `temperature` is above 0. `reasoning`: whether a model that thinks does so first
    (None: as its chat template has it), within `reasoning_tokens` on top of `max_tokens`.
    """

    messages: Messages
    max_tokens: int
    temperature: float = 0.0
    pattern: str | None = None
    sample: int = 0
    reasoning: bool | None = None
    reasoning_tokens: int = 0

    def chat(self) -> list[dict[str, str]]:
        return as_chat(self.messages)

    def key(self, model: str) -> str:
        extras = {
            name: value
            for name in ("pattern", "sample", "reasoning", "reasoning_tokens")
            if (value := getattr(self, name)) not in (None, 0) or value is False
        }
        sampling = self.max_tokens, float(self.temperature)
        return digest("generate", model, self.messages, *sampling, *([extras] if extras else []))


@dataclass(frozen=True)
class Score:
    """Log-likelihood of `target` after `prefix`, both plain text; `target` starts with a space or on a new line, so
    that the two tokenise apart as they do together."""

    prefix: str
    target: str

    def key(self, model: str) -> str:
        return digest("score", model, self.prefix, self.target)


@dataclass(frozen=True)
class Choose:
    """Log-likelihood of each of `choices`, one token each, as the first token of the assistant's turn after a chat.

    `reasoning`: as in `Generate`; a model that thinks must be told not to, or its first token opens its thoughts.
    """

    messages: Messages
    choices: tuple[str, ...]
    reasoning: bool | None = None

    def chat(self) -> list[dict[str, str]]:
        return as_chat(self.messages)

    def key(self, model: str) -> str:
        return digest("choose", model, self.messages, self.choices, self.reasoning)


Request = Generate | Score | Choose


def as_chat(messages: Messages) -> list[dict[str, str]]:
    """Messages as chat templates and servers take them."""
    return [{"role": role, "content": content} for role, content in messages]


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

    @property
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

    def mean_logprob(self) -> float:
        """Nat a target token."""
        value = json.loads(self.output)
        return float(value["logprob"]) / max(1, int(value["tokens"]))


@dataclass(frozen=True)
class Record:
    """One call. `key` depends on model, messages and sampling, not on the engine; `doc_ids` stand in the order shown."""

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

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_row(row: dict[str, Any]) -> "Record":
        return Record(**{**row, "doc_ids": tuple(row["doc_ids"])})

    def reply(self) -> Reply:
        """The reply as the engine gave it: what a parser once made of it is left to today's parser. A refusal stays one,
        since the server may have said so beside the text."""
        outcome = Outcome(self.outcome)
        if outcome not in {Outcome.TRUNCATED, Outcome.ERROR, Outcome.REFUSED}:
            outcome = Outcome.OK
        return Reply(self.output, outcome, self.tokens_in, self.tokens_out, self.tokens_cached, self.seconds)
