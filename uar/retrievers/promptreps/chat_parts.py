"""What stands around a text in a chat that asks a model for the word that represents it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from uar.errors import UserError

MARK = "\x1f"  # where the text goes
FIELD = "{text}"


@dataclass(frozen=True)
class Around:
    """Token ids before and after a text, up to where the model writes its word."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def ids(self, text: Sequence[int]) -> list[int]:
        return [*self.before, *text, *self.after]


def around(tokenizer: Any, model: str, system: str, prompt: str, answer: str) -> Around:
    """`prompt`: what the user says, `{text}` in it; `answer`: how the model's turn begins. A template that refuses a system's
    turn gets its text at the beginning of the user's. UserError where there is no chat template, or no `{text}`."""
    if prompt.count(FIELD) != 1:
        raise UserError(f"retriever: the prompt {prompt!r} needs {FIELD} once, where the text goes")
    if tokenizer.chat_template is None:
        raise UserError(f"retriever.model={model}: it has no chat template; choose an instruction-tuned model")
    user = prompt.replace(FIELD, MARK)
    try:
        chat = _rendered(tokenizer, [("system", system), ("user", user)])
    except TemplateError:
        chat = _rendered(tokenizer, [("user", f"{system}\n\n{user}")])
    before, mark, after = f"{chat}{answer}".partition(MARK)
    if not mark:
        raise UserError(f"retriever.model={model}: its chat template leaves the user's turn out; choose another model")
    encoded = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))
    return Around(*map(tuple, encoded))


def _rendered(tokenizer: Any, turns: Sequence[tuple[str, str]]) -> str:
    chat = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False))
