"""Askers with prompts of their own: what they show of a passage, and what they have written."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from math import inf
from typing import Any, ClassVar

from uar.collections.languages import head
from uar.errors import UserError
from uar.llm.call import Asker
from uar.llm.prompts import ChatPrompt, load_chat
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Generate, Messages

MAX_WORDS = 300  # a passage is cut here before it is shown, as in the paper
REASONING_TOKENS = 2_048
LEAST = {"max_words": 1, "temperature": 0, "sample": 0, "reasoning_tokens": 0}  # of options; 1 of others of so many tokens


@dataclass(frozen=True)
class Prompted(Asker):
    """An asker with a prompt of its own: a packaged name or a YAML file. A passage is cut at `max_words`."""

    template: str = field(kw_only=True)
    max_words: int = field(default=MAX_WORDS, kw_only=True)

    def __post_init__(self) -> None:
        """UserError for a number that nothing can be shown or written by; some servers take it for another."""
        for name in (option.name for option in fields(self)):
            value, least = getattr(self, name), LEAST.get(name, 1 if name.endswith("tokens") else None)
            if least is not None and value is not None and not least <= value < inf:
                raise UserError(f"{name}={value} ({type(self).__name__}): a number from {least} on is needed")

    def cut(self, text: str) -> str:
        """A passage as it is shown, at most `max_words` long; see `words_in` for scripts without spaces."""
        return head(text, self.max_words)

    def shown(self, text: str) -> str:
        """A passage as a chat shows it: one line that cannot be taken for a part of the protocol."""
        return _shown(text, self.max_words)


@dataclass(frozen=True)
class Chatting(Prompted):
    """An asker that has text written. `sample` is the seed where `temperature` is above 0. `reasoning`: true or false
    for models that think before they answer, null for what their chat template does."""

    can_sample = True

    temperature: float = field(default=0.0, kw_only=True)
    sample: int = field(default=0, kw_only=True)
    reasoning: bool | None = field(default=None, kw_only=True)
    reasoning_tokens: int = field(default=REASONING_TOKENS, kw_only=True)

    def generate(self, messages: Messages, tokens: int, pattern: str | None = None, until: str | None = None) -> Generate:
        """Write at most `tokens`, following `pattern` and ending at `until` where the engine can."""
        thinking = self.reasoning_tokens if self.reasoning else 0
        return Generate(messages, tokens, self.temperature, pattern, self.sample, self.reasoning, thinking, until)


@dataclass(frozen=True)
class OnePrompt(Chatting):
    """`variables`: what its one prompt is supplied with. The prompt is read when the asker is made, and stays."""

    variables: ClassVar[frozenset[str]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prompt  # noqa: B018 one that cannot be read is refused before anything is asked

    @cached_property
    def prompt(self) -> ChatPrompt:
        return load_chat(self.template, self.variables)


@lru_cache(maxsize=4_096)  # the stages of a chain show a passage again and again
def _shown(text: str, words: int) -> str:
    return as_material(head(text, words))


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """UserError where an option has a value that it does not know."""
    if value not in allowed:
        raise UserError(f"annotator.{name}={value!r}; allowed: {', '.join(allowed)}")
