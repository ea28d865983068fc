"""Replies that are one word, a list, or a label for each of several numbered things. What is in no such form is a failure with
a name, and never a guess."""

import re
from collections.abc import Sequence

from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_text, unread

SIGNS = "*_`\"'“”‘’[]{}()., \t"
BULLET = re.compile(r"^(?:[-*•·–]\s+|\(?\d{1,3}[.):\]]\s+|\[\d{1,3}\]\s*)")
LABELLED = re.compile(r"^\W*(?:(?:statement|nugget|passage)\s*)?(\d{1,3})\W+(.+)$", re.IGNORECASE)
YES_NO = {"yes": True, "no": False}
YES_NO_PATTERN = "(?:[Yy]es|[Nn]o)"


def read_yes_no(reply: Reply) -> tuple[Outcome, bool]:
    """A reply that begins with `yes` or `no` and has the other word nowhere in its first line; False where it failed."""
    outcome = check_text(reply)
    if outcome != Outcome.OK:
        return outcome, False
    words = re.findall(r"\w+", reply.text.strip().splitlines()[0].lower())
    said = words[0] if words else ""
    if said not in YES_NO or (YES_NO.keys() - {said}) & set(words):
        return unread(reply.text), False
    return Outcome.OK, YES_NO[said]


def check_yes_no(reply: Reply) -> Outcome:
    return read_yes_no(reply)[0]


def read_list(reply: Reply) -> tuple[Outcome, list[str]]:
    """The items of a list, each on a line of its own behind a dash or a number; a line directly below an item goes on with it,
    other prose is left aside. A reply that is the word `none` is a list of nothing."""
    outcome = check_text(reply)
    if outcome != Outcome.OK:
        return outcome, []
    if BULLET.sub("", reply.text.strip()).strip(SIGNS).lower() == "none":
        return Outcome.OK, []
    items: list[str] = []
    within = False
    for line in map(str.strip, reply.text.splitlines()):
        bullet = BULLET.match(line)
        if bullet:
            items.append(line[bullet.end() :].strip())
        elif within and line:
            items[-1] = f"{items[-1]} {line}"
        within = bool(bullet) or (within and bool(line))
    items = list(dict.fromkeys(item for item in items if item.strip(SIGNS)))
    return (Outcome.OK, items) if items else (unread(reply.text), [])


def check_list(reply: Reply) -> Outcome:
    return read_list(reply)[0]


def read_labels(reply: Reply, number: int, allowed: Sequence[str]) -> tuple[Outcome, list[str]]:
    """A label for each of the things 1 to `number`, from lines such as `2: yes`, or of one thing the label alone; a reason may
    follow in parentheses or behind a dash. Each must be there once, with one of the labels `allowed`: a reply that leaves one
    out, says two things of one, or whose reason names another label, is unparsable."""
    outcome = check_text(reply)
    if outcome != Outcome.OK:
        return outcome, []
    found: dict[int, str] = {}
    for line in reply.text.splitlines():
        match = LABELLED.match(line)
        at, said = (int(match[1]), match[2]) if match else (1, line) if number == 1 else (0, "")
        if not said.strip(SIGNS):
            continue
        if not 1 <= at <= number:
            return Outcome.OUT_OF_RANGE, []
        label = _label(said, allowed)
        if label is None or found.setdefault(at, label) != label:
            return unread(reply.text), []
    if len(found) < number:
        return unread(reply.text), []
    return Outcome.OK, [found[at] for at in range(1, number + 1)]


def labels_pattern(number: int, allowed: Sequence[str]) -> str:
    """A regular expression of the replies that label the things 1 to `number` in order."""
    label = f"(?:{'|'.join(allowed)})"
    return r"\n".join(f"{at}: {label}" for at in range(1, number + 1))


def _label(said: str, allowed: Sequence[str]) -> str | None:
    """The label that a text is, but for a reason."""
    label, *reason = re.split(r"\s[-–—]+\s|[—(]", said.strip(SIGNS).lower(), maxsplit=1)
    label = re.sub(r"[\s-]+", "_", label.strip(SIGNS + ":;"))
    others = {other for other in allowed if other != label}
    return label if label in allowed and not others & set(re.findall(r"\w+", " ".join(reason))) else None
