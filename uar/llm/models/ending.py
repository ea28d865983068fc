"""Where a text that is being written may end before the model ends it."""

from collections.abc import Callable
from typing import Any

from uar.llm.record import Generate, Outcome
from uar.llm.replies import ended
from uar.llm.thinking import CLOSES, OPENS

LAST = 8  # tokens of a prompt in which its template may have opened the model's thoughts

Ends = Callable[[list[int]], Outcome | None]  # of the tokens written so far, where they are all that is wanted


def early_end(tokenizer: Any, request: Generate, prompt: list[int]) -> Ends:
    """Tells whether what is written after a prompt may end, see `Generate.until`. Thoughts that the prompt opens cannot be
    told from the reply in time: they go on."""
    if request.until is None or _opens_thoughts(tokenizer.decode(prompt[-LAST:])):
        return lambda written: None
    return lambda written: ended(tokenizer.decode(written, skip_special_tokens=True), request.until)


def _opens_thoughts(last: str) -> bool:
    return bool(OPENS.search(last) and not CLOSES.search(last))
