"""What became of a call: why its reply ended, and what its text or its log-likelihoods say of it."""

import math
import re
from bisect import bisect_left
from dataclasses import replace
from typing import Any

from uar.llm.record import Outcome, Reply
from uar.llm.refusals import REFUSAL
from uar.llm.thinking import without_thinking

LEAST_MASS = 0.1  # probability of all choices together, below which nothing is made of their proportions

STOPPED = {"stop", "eos", "eos_token", "stop_token", "stop_sequence", "end_turn", "complete", "completed"}
CUT = {
    "length",
    "max_tokens",
    "max_length",
    "max_output_tokens",
    "model_length",
    "model_context_window_exceeded",
}
FILTERED = {
    "content_filter",
    "content_filtered",
    "safety",
    "refusal",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "sensitive",
    "error_toxic",
    "guardrail_intervened",
}


def outcome_of(finish_reason: Any) -> Outcome:
    """Outcome of a reply by the reason for which it ended, in the words of vLLM, SGLang, TGI, llama.cpp, OpenAI, Gemini,
    Anthropic, Mistral and Cohere. A reason that is none of these (`error`, `abort`, `tool_calls`, null) is an error: it is not
    known whether the reply is whole."""
    name = finish_reason.get("type") if isinstance(finish_reason, dict) else finish_reason  # SGLang's own interface
    name = re.split(r"[^\w]", str(name).lower().removeprefix("finishreason."))[0]  # Gemini: `content_filter: SAFETY`
    if name in STOPPED:
        return Outcome.OK
    return Outcome.TRUNCATED if name in CUT else Outcome.REFUSED if name in FILTERED else Outcome.ERROR


def ended(text: str, until: str | None) -> Outcome | None:
    """Outcome of a text, thinking included, that may end as `Generate.until` says: cut where that is within a line. None
    where it must go on."""
    whole_line = text.endswith("\n")
    if until is None or not re.match(until, without_thinking(text) + "\n" * whole_line):
        return None
    return Outcome.OK if whole_line else Outcome.TRUNCATED


def cut(reply: Reply, until: str) -> Reply:
    """A written reply as it is where an engine ends it as soon as it can, whether this one did or not."""
    text = reply.text
    if reply.outcome not in {Outcome.OK, Outcome.TRUNCATED} or not re.match(until, text):
        return reply
    end = bisect_left(range(len(text)), True, key=lambda at: re.match(until, text[:at]) is not None)
    wanted = text[:end]
    return replace(reply, output=wanted, outcome=Outcome.OK if wanted.endswith("\n") else Outcome.TRUNCATED)


def check_text(reply: Reply) -> Outcome:
    """Outcome of a free answer."""
    if reply.outcome != Outcome.OK:
        return reply.outcome
    return Outcome.OK if reply.text else Outcome.EMPTY


def check_answer(reply: Reply) -> Outcome:
    """Like `check_text` for a short answer: one that was cut at the token limit counts, its measure judges it as it is."""
    outcome = check_text(reply)
    return Outcome.OK if outcome == Outcome.TRUNCATED and reply.text else outcome


def check_score(reply: Reply) -> Outcome:
    """Outcome of a log-likelihood."""
    if reply.outcome != Outcome.OK:
        return reply.outcome
    return Outcome.OK if math.isfinite(reply.mean_logprob()) else Outcome.UNPARSABLE


def check_choices(reply: Reply) -> Outcome:
    """Outcome of the log-likelihoods of choices: at least one must be possible, and a model that would rather say something
    else, so that all choices together have less than `LEAST_MASS`, has not chosen."""
    if reply.outcome != Outcome.OK:
        return reply.outcome
    values = reply.choice_logprobs().values()
    good = any(math.isfinite(v) for v in values) and not any(math.isnan(v) or v == math.inf for v in values)
    mass = reply.choice_mass()
    return Outcome.OK if good and (mass is None or mass >= LEAST_MASS) else Outcome.UNPARSABLE


def unread(text: str) -> Outcome:
    """Outcome of a text that is not in the form that was asked for: empty, a refusal, or simply another form."""
    if not text:
        return Outcome.EMPTY
    return Outcome.REFUSED if REFUSAL.search(text) else Outcome.UNPARSABLE


def first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""
