"""What the page sends, with its values of the right kinds."""

import math
from collections.abc import Mapping
from typing import Any

from uar.errors import UserError

LONGEST_NAME = 60
LONGEST_TEXT = (1 << 31) - 1  # characters
JOINERS = {0x200C: None, 0x200D: None}  # that names in some scripts are spelt with
STATES = ("done", "skipped", "open")


class Refused(UserError):
    """What the page sent cannot be kept."""


def checked_event(event: Mapping[str, Any], passages: int, grades: int, now: float) -> dict[str, Any]:
    """A label or a turn of a question with so many passages, on a scale of so many grades; Refused for another thing."""
    kind, item = event.get("kind"), event["item"]
    if not isinstance(event.get("id"), str) or not 8 <= len(event["id"]) <= 64 or kind not in ("label", "turn"):
        raise Refused("an event needs an id and a kind, label or turn; load the page again")
    found = {"id": event["id"], "kind": kind, "item": item, "time": min(_number(event, "time", now), now)}
    if kind == "turn":
        if event.get("state") not in STATES:
            raise Refused(f"state is {event.get('state')!r}; allowed: {', '.join(STATES)}")
        return found | {"state": event["state"]}
    place, grade = event.get("place"), event.get("grade")
    if type(place) is not int or not 0 <= place < passages:
        raise Refused(f"place is {place!r}; question {item} has passages 0 to {passages - 1}")
    if grade is not None and (type(grade) is not int or not 0 <= grade < grades):
        raise Refused(f"grade is {grade!r}; 0 to {grades - 1}, or null for none, are allowed")
    start, end, shown = event.get("start"), event.get("end"), event.get("shown")
    marked = type(start) is int and type(end) is int and 0 <= start < end <= LONGEST_TEXT
    return found | {
        "place": place,
        "grade": grade,
        "confidence": _number(event, "confidence", None),
        "seconds": _number(event, "seconds", None),
        "start": start if marked else None,
        "end": end if marked else None,
        "shown": shown if isinstance(shown, bool) else None,
    }


def person(who: object) -> str:
    """A name without white space around it; Refused for none."""
    name = " ".join(who.split()) if isinstance(who, str) else ""
    if not name or len(name) > LONGEST_NAME or not name.translate(JOINERS).isprintable():
        raise Refused(f"a name of 1 to {LONGEST_NAME} printable characters is needed")
    return name


def _number(event: Mapping[str, Any], name: str, default: Any) -> Any:
    value = event.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    return default
