"""What became of a call: why its reply ended, and what its text or its log-likelihoods say of it."""

import math
import re

from uar.llm.record import Outcome, Reply

REFUSAL = re.compile(r"\b(i (cannot|can't|am unable to|won't)|i'm (sorry|unable)|as an ai)\b", re.IGNORECASE)
LEAST_MASS = 0.1  # probability of all choices together, below which nothing is made of their proportions


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
