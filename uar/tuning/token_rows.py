"""Prompts and replies as token ids, exactly as the model is asked later."""

from dataclasses import dataclass
from typing import Any

from uar.errors import UserError
from uar.llm.models.tokens import chat_ids, choice_ids, text_ids
from uar.llm.record import Choose, Outcome
from uar.tuning.task import Case, Rolled


@dataclass(frozen=True)
class TokenRow:
    """A prompt, and a reply with the token that ends it."""

    prompt: list[int]
    reply: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.reply)


def prompt_ids(tokenizer: Any, case: Case) -> list[int]:
    """EngineError where the tokenizer has no chat template."""
    request = case.call.request if case.choices else case.written().request
    return chat_ids(tokenizer, request)  # type: ignore[arg-type]


def token_row(tokenizer: Any, case: Case, reply: str) -> TokenRow:
    """A choice is the token that is read when it is asked for."""
    prompt, request = prompt_ids(tokenizer, case), case.call.request
    if isinstance(request, Choose):
        ids = [choice_ids(tokenizer, request)[request.choices.index(reply)]]
    else:
        ids = _text_after(tokenizer, prompt, reply)
    return TokenRow(prompt, [*ids, end_token(tokenizer)])


def drawn_row(tokenizer: Any, rolled: Rolled) -> TokenRow:
    """Of a reply as the model wrote it, its thinking included. One that was cut has no token that ends it."""
    reply, prompt = rolled.reply, prompt_ids(tokenizer, rolled.case)
    if rolled.case.choices and reply.text.strip() in rolled.case.choices:
        return token_row(tokenizer, rolled.case, reply.text.strip())
    ids = _text_after(tokenizer, prompt, reply.output)
    return TokenRow(prompt, ids if reply.outcome == Outcome.TRUNCATED else [*ids, end_token(tokenizer)])


def end_token(tokenizer: Any) -> int:
    """UserError where there is none."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"{tokenizer.name_or_path} names no token that ends a text; choose an instruction-tuned model")
    return int(tokenizer.eos_token_id)


def _text_after(tokenizer: Any, prompt: list[int], text: str) -> list[int]:
    """As it stands in the whole, where the tokens of the prompt stay what they are; a tokenizer may put a space before a text
    that stands alone."""
    whole = text_ids(tokenizer, tokenizer.decode(prompt, clean_up_tokenization_spaces=False) + text)
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else text_ids(tokenizer, text)
