"""Chats and choices as a model's tokenizer sees them."""

from typing import Any

from uar.annotation.record import Choose, Generate
from uar.errors import EngineError


def chat_ids(tokenizer: Any, request: Generate | Choose) -> list[int]:
    """Token ids of a chat under the model's own template, up to where the assistant's turn begins."""
    if tokenizer.chat_template is None:
        raise EngineError(f"{tokenizer.name_or_path} has no chat template; choose an instruction-tuned model")
    thinking = {} if request.reasoning is None else {"enable_thinking": request.reasoning}
    return list(tokenizer.apply_chat_template(request.chat(), add_generation_prompt=True, return_dict=False, **thinking))


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
