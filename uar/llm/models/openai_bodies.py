"""What the `openai` engine sends for a request, and what it reads out of an answer."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from uar.errors import EngineError
from uar.llm.models.spelling import spelled
from uar.llm.pictured import Pictured
from uar.llm.record import THINK_END, THINK_START, Choose, Generate, Outcome, Reply, Request, Score
from uar.llm.replies import outcome_of

TOP_LOGPROBS = 20  # as many as servers give for a token
SCHEMA = "json_schema"  # of `constrain`: replies are held to their pattern inside a JSON object
CONSTRAIN = (False, True, SCHEMA)
REPLY = "reply"  # the field of that object
BASE64 = re.compile(r"(?:data:[\w/+.-]*;base64,)?(?:[A-Za-z0-9+]|\\?/){64,}={0,2}")
MOST = 2**31  # tokens of a call, which the store could not keep
LEAST = 1e-10  # probability that is left for a choice where the listed ones, rounded, take all


class NoLogprobs(Exception):
    """Why the log-likelihoods that were asked for cannot be read from an answer; asking again would not help."""


class NoPromptLogprobs(NoLogprobs):
    """The server gives none for what it reads."""


class NotEnded(Exception):
    """The reply ended for a reason that leaves open whether it is whole, such as `abort`; asking again may help."""


LIMITED = re.compile(r"rate.?limit|too.?many|resource.?exhausted|quota|throttl", re.IGNORECASE)
FINAL = re.compile(r"invalid|bad.?request|not.?found|auth|permission|denied|context.?length|unsupported", re.IGNORECASE)


def error_in(body: Any) -> tuple[int, str] | None:
    """The status and the message of an error that an answer of status 200 holds, as gateways send it; None where it holds
    none. A status that it does not name is 500: it may be asked again."""
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = body if body.get("object") == "error" else body.get("error") or first.get("error")
    if not error:
        return None
    if not isinstance(error, dict):
        return 429 if LIMITED.search(str(error)) else 500, str(error)
    return _status(error), str(error.get("message") or json.dumps(error, ensure_ascii=False))


def _status(error: Mapping[str, Any]) -> int:
    named = [str(error.get(name, "")) for name in ("code", "status", "type")]
    number = next((int(value) for value in named if re.fullmatch("[45][0-9][0-9]", value)), None)
    if number is not None:
        return number
    words = " ".join(named)
    return 429 if LIMITED.search(words) else 400 if FINAL.search(words) else 500


def checked_constrain(constrain: bool | str | None) -> bool | str:
    """The option `llm.constrain`; EngineError where it is none of CONSTRAIN. None is false."""
    if constrain not in (None, *CONSTRAIN):
        raise EngineError(f"llm.constrain={constrain!r}; allowed: false, true (vLLM), {SCHEMA} (other servers)")
    return constrain or False


def body_of(request: Request, model: str, constrain: bool | str) -> tuple[str, dict[str, Any]]:
    """Path and body. `constrain`: whether the server takes a regular expression that the reply must follow, or, as SCHEMA, a
    JSON schema (`response_format`), in which the pattern is that of a string."""
    if isinstance(request, Score):
        prompt = request.prefix + request.target
        return "/completions", {
            "model": model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
    body: dict[str, Any] = {"model": model, "messages": _with_images(request), "top_p": 1}
    if request.reasoning is not None:
        body["chat_template_kwargs"] = {"enable_thinking": request.reasoning}
    if isinstance(request, Choose):
        body |= {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return "/chat/completions", body
    thinking = 0 if request.reasoning is False else request.reasoning_tokens
    body |= {"max_tokens": request.max_tokens + thinking, "temperature": request.temperature}
    if request.temperature > 0:
        body["seed"] = request.sample
    if holds(request, constrain):
        body |= _schema(request.pattern or "") if constrain == SCHEMA else {"structured_outputs": {"regex": request.pattern}}
    return "/chat/completions", body


def _with_images(request: Generate | Choose) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [*request.chat()]
    for turn, (_, text) in zip(turns, request.messages, strict=True):
        if isinstance(text, Pictured):
            image = {"type": "image_url", "image_url": {"url": text.image.url()}}
            turn["content"] = [image, {"type": "text", "text": turn["content"]}]
    return turns


def without_base64(text: str) -> str:
    """What a server says, without the images that it may repeat."""
    return BASE64.sub("[base64]", text)


def _schema(pattern: str) -> dict[str, Any]:
    """Patterns of JSON schemas match anywhere in a string, so the ends are said."""
    schema = {
        "type": "object",
        "properties": {REPLY: {"type": "string", "pattern": f"^(?:{pattern})$"}},
        "required": [REPLY],
        "additionalProperties": False,
    }
    return {"response_format": {"type": "json_schema", "json_schema": {"name": REPLY, "strict": True, "schema": schema}}}


def holds(request: Generate, constrain: bool | str) -> bool:
    """Whether the server is told the pattern of the reply; it would hold thoughts to it too."""
    return bool(constrain) and request.pattern is not None and not request.reasoning


def adapted(body: dict[str, Any], max_tokens_field: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """A body as this server wants it: `max_tokens` of a chat under another name, and `extra` fields, of which null leaves one
    out."""
    name = max_tokens_field if "messages" in body else "max_tokens"
    fields = {(name if field == "max_tokens" else field): value for field, value in body.items()} | dict(extra)
    return {field: value for field, value in fields.items() if value is not None}


def read(request: Request, body: Any, seconds: float, constrain: bool | str = False) -> Reply:
    """The reply in an answer's JSON; `constrain` as it was asked, see `body_of`. One that was cut off has as many tokens as it
    may have where the server counts none. Raises NoLogprobs, NotEnded, and ValueError, LookupError, TypeError, AttributeError
    or ArithmeticError where the JSON is not what a server of this interface sends."""
    counts: dict[str, Any] = {**tokens_of(body), "seconds": seconds}
    choice = body["choices"][0]
    reason = choice.get("finish_reason")
    outcome = outcome_of(reason)
    if outcome == Outcome.ERROR:
        raise NotEnded(f"ended a reply for {json.dumps(reason)}")
    if isinstance(request, Generate):
        if outcome == Outcome.TRUNCATED:
            counts["tokens_out"] = counts["tokens_out"] or request.limit
        return _written(choice, outcome, counts, constrain == SCHEMA and holds(request, constrain))
    if outcome == Outcome.REFUSED:
        return Reply(str(reason), outcome, **counts)
    if isinstance(request, Score):
        return _scored(request, choice, counts)
    return Reply.of_choices(*_chosen(request.choices, choice), **counts)


def tokens_of(body: Any) -> dict[str, int]:
    """What a call took, as its answer says; ValueError for numbers that no call can take. Servers that count cached tokens
    beside those of the prompt have at most these."""
    usage = body.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    read, written, again = (int(n or 0) for n in (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached))
    if not all(0 <= number < MOST for number in (read, written, again)):
        raise ValueError(f"{read} tokens read, {again} of them cached, {written} written")
    return {"tokens_in": read, "tokens_out": written, "tokens_cached": min(again, read)}


def _written(choice: dict[str, Any], outcome: Outcome, counts: dict[str, Any], in_object: bool) -> Reply:
    message = choice["message"]
    if message.get("refusal"):
        return Reply(_text(message["refusal"]), Outcome.REFUSED, **counts)
    text = _text(message.get("content") or "")
    text = _taken_out(text) if in_object else text
    thinking = _text(message.get("reasoning") or message.get("reasoning_content") or "")
    if thinking:
        text = f"{THINK_START}\n{thinking}\n{THINK_END}\n\n{text}"
    return Reply(text, outcome, **counts)


def _taken_out(text: str) -> str:
    """The reply in the object of a schema; a text that is none, of a server that holds to no schema, as it is."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _text(found[REPLY]) if isinstance(found, dict) and isinstance(found.get(REPLY), str) else text


def _text(value: Any) -> str:
    """Text that can be written as UTF-8: half of a surrogate pair, which JSON can name, becomes a question mark."""
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value.encode("utf-8", "replace").decode("utf-8")


def _scored(request: Score, choice: dict[str, Any], counts: dict[str, Any]) -> Reply:
    listed = choice.get("logprobs") or {}
    tokens, logprobs = listed.get("tokens"), listed.get("token_logprobs")
    if not tokens or not logprobs:
        raise NoPromptLogprobs("gives no log-likelihoods of a prompt")
    places = spelled(tokens, request.prefix, request.target)  # its offsets drift where tokens are parts of characters
    if places is None:
        raise NoLogprobs("lists no tokens that spell the text to be scored")
    values = [logprobs[at] for at in places]
    if any(value is None for value in values):
        raise NoLogprobs("leaves out log-likelihoods of the prompt")
    return Reply.of_score(sum(values), len(values), **counts)


def _chosen(choices: Iterable[str], choice: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Log-likelihoods of the choices as the first token, from the likeliest tokens that a server lists, and the probability of
    those choices that are listed.

    Several tokens may spell one choice (with a space before it or not): their probabilities are added. A choice that is
    not listed is less likely than all that are, and has at most the probability that they leave; it gets the lower of the two,
    an upper bound of its own.
    """
    tokens = (choice.get("logprobs") or {}).get("content")
    listed = tokens[0].get("top_logprobs") if tokens else None
    if not listed:
        raise NoLogprobs("gives no log-likelihoods of a reply")
    found: dict[str, list[float]] = {}
    for token in listed:
        found.setdefault(token["token"].strip(), []).append(float(token["logprob"]))
    values = [value for spellings in found.values() for value in spellings]
    left = max(LEAST, 1 - sum(math.exp(min(0.0, value)) for value in values))
    most = min(*values, math.log(left))
    logprobs = {c: _log_of_sum(found[c]) if c in found else most for c in choices}
    return logprobs, sum(math.exp(min(0.0, value)) for c, value in logprobs.items() if c in found)


def _log_of_sum(values: list[float]) -> float:
    """Log of the sum of what the values are logs of."""
    most = max(values)
    return most if most == -math.inf else most + math.log(sum(math.exp(value - most) for value in values))
