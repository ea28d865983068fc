"""From raw replies to what they select; a reply that cannot be read is named, never guessed."""

import re

from uar.annotation.record import Outcome, Reply

REFUSAL = re.compile(r"\b(i (cannot|can't|am unable to|won't)|i'm (sorry|unable)|as an ai)\b", re.IGNORECASE)


def check_text(reply: Reply) -> Outcome:
    """Outcome of a free answer."""
    if reply.outcome != Outcome.OK:
        return reply.outcome
    return Outcome.OK if reply.output.strip() else Outcome.EMPTY


def parse_selection(reply: Reply, shown: int) -> tuple[Outcome, list[int]]:
    """Indices from 0, in the order given, of a reply such as `My selection:[[2],[5]]` over `shown` passages.

    `My selection:[]` is a good reply that selects nothing.
    """
    if reply.outcome != Outcome.OK:
        return reply.outcome, []
    text = reply.output.strip()
    if not text:
        return Outcome.EMPTY, []
    found = [n for group in re.findall(r"\[([\d\s,]+)\]", text) for n in re.findall(r"\d+", group)]
    numbers = [int(n) if len(n) < 10 else shown + 1 for n in found]
    if not numbers:
        if re.search(r"\[\s*\]", text):
            return Outcome.OK, []
        return (Outcome.REFUSED if REFUSAL.search(text) else Outcome.UNPARSABLE), []
    if any(not 1 <= n <= shown for n in numbers):
        return Outcome.OUT_OF_RANGE, []
    return Outcome.OK, [n - 1 for n in dict.fromkeys(numbers)]
