"""From raw replies to what they say; a reply that cannot be read is named, never guessed."""

import re
from collections.abc import Callable
from collections.abc import Collection as Numbers

from uar.llm.record import Outcome, Reply
from uar.llm.replies import unread

LABEL = re.compile(r"my\s+selection[\s*_`]*:[\s*_`]*", re.IGNORECASE)
LEAD = re.compile(
    r"[\s*_`]*(?:json\s)?(?:(?:my|the)\s+)?(?:final\s+)?(?:selection|selected(?:\s+passages)?|ranking|answer)?[\s*_`:=]*",
    re.IGNORECASE,
)
NUMBERS = r"\[[\d\s,]*\]"
LIST = re.compile(
    rf"\[\s*{NUMBERS}(?:[\s,]*{NUMBERS})*[\s,]*\]"  # [[2],[5]]
    rf"|{NUMBERS}(?:(?:\s*,\s*|\s*,?\s*and\s*|[ \t]*){NUMBERS})*"  # [], [2, 5], or [2], [5] without brackets around them
)
RANKED = re.compile(r"\[\s*\d+\s*\](?:\s*>\s*\[\s*\d+\s*\])+")
AFTER = re.compile(r"[\s*_`.]*")


def parse_selection(reply: Reply, numbers: Numbers[int]) -> tuple[Outcome, list[int]]:
    """Passage numbers, in the order given, of a reply such as `My selection:[[2],[5]]`; `numbers` are those allowed.

    What counts is the list that stands directly after the last `My selection:`, whatever else the reply says; without these
    words the reply must be a list and nothing else. `My selection:[]` is a good reply that selects nothing.
    """
    return _parse_numbers(reply, numbers, _selection_in)


def parse_ranking(reply: Reply, numbers: Numbers[int]) -> tuple[Outcome, list[int]]:
    """All of `numbers` in the order of a reply such as `[2] > [5] > [1]`; those that it leaves out follow as they stand.

    What counts is the longest unbroken run of that form, of equal ones the last; without one the reply must be a list and
    nothing else.
    """
    outcome, found = _parse_numbers(reply, numbers, _ranking_in)
    return outcome, found + [n for n in numbers if n not in found] if outcome == Outcome.OK else []


def parse_grade(reply: Reply, grades: Numbers[int]) -> tuple[Outcome, int | None]:
    """The one grade that a reply such as `2` or `Grade: 2` names."""
    if reply.outcome != Outcome.OK:
        return reply.outcome, None
    found = set(re.findall(r"\d+", reply.text))
    if len(found) != 1:
        return unread(reply.text), None
    grade = int(found.pop()[:9])
    return (Outcome.OK, grade) if grade in grades else (Outcome.OUT_OF_RANGE, None)


def _parse_numbers(reply: Reply, numbers: Numbers[int], find: Callable[[str], str | None]) -> tuple[Outcome, list[int]]:
    if reply.outcome != Outcome.OK:
        return reply.outcome, []
    text = reply.text
    listed = find(text)
    if listed is None:
        return unread(text), []
    found = [int(n[:9]) for n in re.findall(r"\d+", listed)]
    if any(n not in numbers for n in found):
        return Outcome.OUT_OF_RANGE, []
    return Outcome.OK, list(dict.fromkeys(found))


def _selection_in(text: str) -> str | None:
    labels = list(LABEL.finditer(text))
    if not labels:
        return _bare_list(text)
    listed = LIST.match(text, labels[-1].end())
    return listed.group() if listed else None


def _ranking_in(text: str) -> str | None:
    runs = [run.group() for run in RANKED.finditer(text)]
    if runs:
        return max(reversed(runs), key=lambda run: run.count(">"))
    listed = _bare_list(text)
    return listed if listed and re.search(r"\d", listed) else None


def _bare_list(text: str) -> str | None:
    """The list in a reply that is one, but for a word that leads to it and signs around it."""
    lead = LEAD.match(text)
    listed = LIST.match(text, lead.end() if lead else 0)
    return listed.group() if listed and AFTER.fullmatch(text, listed.end()) else None


def selection_pattern(numbers: Numbers[int], most: int | None) -> str:
    """A regular expression of the selections of at most `most` of `numbers`."""
    item = _item(numbers)
    more = min(most or len(numbers), len(numbers)) - 1
    return rf"My selection:\[(?:{item}(?:,{item}){{0,{more}}})?\]"


def ranking_pattern(numbers: Numbers[int]) -> str:
    """A regular expression of the rankings that are as long as `numbers`."""
    item = _item(numbers)
    return rf"{item}(?: > {item}){{{len(numbers) - 1}}}"


def _item(numbers: Numbers[int]) -> str:
    return rf"\[(?:{'|'.join(map(str, numbers))})\]"
