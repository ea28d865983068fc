"""Chats and choices as a model's tokenizer sees them."""

from typing import Any

from jinja2 import TemplateError

from uar.errors import EngineError
from uar.llm.pictured import images_of
from uar.llm.record import Choose, Generate, Score


class CannotScore(Exception):
    """Why the target of a score has no log-likelihood of its own."""


def chat_ids(tokenizer: Any, request: Generate | Choose) -> list[int]:
    """Token ids of a chat under the model's own template, up to where the assistant's turn begins. A template that refuses a
    system's turn gets its text at the beginning of the user's."""
    return _accepted(tokenizer, request)[1]


def accepted_chat(tokenizer: Any, request: Generate | Choose) -> list[dict[str, str]]:
    """The turns that `chat_ids` renders."""
    return _accepted(tokenizer, request)[0]


def _accepted(tokenizer: Any, request: Generate | Choose) -> tuple[list[dict[str, str]], list[int]]:
    if tokenizer.chat_template is None:
        raise EngineError(f"{tokenizer.name_or_path} has no chat template; choose an instruction-tuned model")
    if images_of(request.messages):
        raise EngineError(f"{tokenizer.name_or_path} is asked in text alone, and a question has an image; use llm=openai")
    chat = request.chat()
    try:
        return chat, _rendered(tokenizer, chat, request.reasoning)
    except TemplateError as error:
        if chat[0]["role"] != "system" or len(chat) == 1:
            raise EngineError(f"{tokenizer.name_or_path}: its chat template refuses these turns ({error})") from error
    (system, first), others = chat[:2], chat[2:]
    chat = [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *others]
    return chat, _rendered(tokenizer, chat, request.reasoning)


def _rendered(tokenizer: Any, chat: list[dict[str, str]], reasoning: bool | None) -> list[int]:
    thinking = {} if reasoning is None else {"enable_thinking": reasoning}
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False, **thinking))


def prefix_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of plain text as a model reads it first: after the token that its tokenizer begins a text with, if it does."""
    start = tokenizer.bos_token_id
    begins = start is not None and list(tokenizer.encode("a"))[:1] == [start]
    return [*([start] if begins else []), *text_ids(tokenizer, text)]


def target_ids(tokenizer: Any, request: Score, prefix: list[int]) -> list[int]:
    """Token ids of a score's target as they stand in the whole text, after `prefix`, the ids of its prefix: a tokenizer that
    puts a space before a text puts none before the target. CannotScore where a token of the whole belongs to both."""
    whole = prefix_ids(tokenizer, request.prefix + request.target)
    target = whole[len(prefix) :]
    if not target or whole[: len(prefix)] != prefix:
        raise CannotScore(
            f"no token of {tokenizer.name_or_path} begins where {request.target[:30]!r} does; let the text to be scored begin "
            "with a space or on a new line"
        )
    return target


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of plain text, nothing added before or after."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def choice_ids(tokenizer: Any, request: Choose) -> list[int]:
    """The token of each choice; EngineError where one is not a single token."""
    found: list[int] = []
    for choice in request.choices:
        ids = text_ids(tokenizer, choice)
        if len(ids) != 1:
            raise EngineError(
                f"choice {choice!r} is {len(ids)} tokens for {tokenizer.name_or_path}; choices must be one token each"
            )
        found += ids
    return found
