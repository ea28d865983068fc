"""Lines of batch files, in OpenAI's format: calls that are uploaded, and what came of them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from uar.llm.models.openai_bodies import NoLogprobs, NotEnded, error_in, read, tokens_of, without_base64
from uar.llm.record import Outcome, Reply, Request
from uar.storage.files import digest

ENDPOINT = "/v1/chat/completions"
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def call_line(body: dict[str, Any]) -> tuple[str, bytes]:
    """The name of a call, which its body gives, and its line."""
    name = digest(body)
    line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
    return name, json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def parts_of(lines: Sequence[tuple[str, bytes]], most: int, most_bytes: int) -> Iterator[list[tuple[str, bytes]]]:
    """The lines in files of at most `most` calls and `most_bytes` bytes; a call that is larger is a file of its own."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for line in lines:
        if part and (len(part) >= most or size + len(line[1]) > most_bytes):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line[1])
    if part:
        yield part


def results_in(text: bytes) -> dict[str, dict[str, Any]]:
    """By name of the call, its line of an output or error file. A line that cannot be read tells nothing of its call."""
    found = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            found[str(row["custom_id"])] = row
        except UNREADABLE:
            continue
    return found


def reply_of(request: Request, row: dict[str, Any] | None, why: str, constrain: bool | str) -> Reply:
    """What a line says; of a call that has none, or whose line tells an error, a failure. `why`: how the batch ended."""
    if row is None:
        return Reply(f"the batch {why} before this call was answered", Outcome.ERROR)
    response = row.get("response") or {}
    body, status = response.get("body"), response.get("status_code")
    error = row.get("error")
    if error:
        text = error.get("message") or error.get("code") if isinstance(error, dict) else error
        return Reply(f"the batch says: {without_base64(str(text))}"[:300], Outcome.ERROR)
    told = error_in(body)
    if status != 200 or told:
        said = without_base64(f"{told[0] if told else status} {told[1] if told else json.dumps(body)}")
        return Reply(said[:300], Outcome.ERROR)
    try:
        return read(request, body, 0.0, constrain)
    except (NoLogprobs, NotEnded) as problem:
        return Reply(f"the server {problem}", Outcome.ERROR, **tokens_of(body))
    except UNREADABLE as problem:
        return Reply(f"the server wrote an unreadable answer ({type(problem).__name__})", Outcome.ERROR)
