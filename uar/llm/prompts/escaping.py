"""Passage text that cannot pass for a part of the protocol: identifiers, role markers and control tokens are defused."""

import re
from collections.abc import Iterator

CONTROL = re.compile(
    r"<[|｜][^<>]{1,40}[|｜]>"  # <|im_end|>, <|eot_id|>, <｜end▁of▁sentence｜>
    r"|</?(?:s|bos|eos|pad|unk|mask|unused\d+|think|filename|reponame)>"
    r"|</?[a-z]+(?:_[a-z0-9]+)+>"  # <start_of_turn>, <tool_call>, <file_sep>, </tool_response>
    r"|<</?SYS>>"
    r"|\[/?(?:INST|THINK|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    re.IGNORECASE,
)
ROLE = re.compile(
    r"^((?:[#*>]|[^\S\n])*(?:system|user|assistant|human|model|instruction|response))\s*:", re.IGNORECASE | re.MULTILINE
)
IDENTIFIER = re.compile(r"\[((?=[\s,\-–]*\d)[\s\d,\-–]+)\]")
FORMAT = re.compile(r"\b(my\s+selection)\s*:", re.IGNORECASE)
ORDER = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:(?:all|any|everything|the|your)\s+)*(?:above|previous|prior|earlier|instructions?)\b",
    re.IGNORECASE,
)


def without_control_tokens(text: str) -> str:
    """Spaces inside a control token's brackets make plain text of it for every tokenizer: `<|im_end|>` -> `< |im_end| >`."""
    return CONTROL.sub(lambda m: f"{m.group()[0]} {m.group()[1:-1]} {m.group()[-1]}", text)


def as_material(text: str) -> str:
    """A text as one line that a chat may quote: besides control tokens, role markers (`user:` at a line's start),
    identifiers (`[3]` -> `(3)`) and the answer format (`My selection:`) are defused. Instructions are left as they are: the
    prompts call them material."""
    if ":" in text:  # most texts have no character that a pattern needs
        text = ROLE.sub(r"\1 -", text)
    if "<" in text or "[" in text:
        text = IDENTIFIER.sub(r"(\1)", without_control_tokens(text))
    if ":" in text:
        text = FORMAT.sub(r"\1 -", text)
    return " ".join(text.split())


def attempts(text: str) -> Iterator[str]:
    """Names of what in a text might have broken the protocol."""
    for name, pattern in (
        ("control_tokens", CONTROL),
        ("role_markers", ROLE),
        ("identifiers", IDENTIFIER),
        ("answer_formats", FORMAT),
        ("instructions", ORDER),
    ):
        if pattern.search(text):
            yield name
