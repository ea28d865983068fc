"""From raw replies to the passages and grades that they name; a reply that cannot be read is named, never guessed."""

import re
from collections.abc import Collection as Numbers
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from uar.annotation.doubts import BACKWARDS, BOUNDS, begins_with_denial, is_doubtful, takes_back
from uar.annotation.listed_passages import (
    BLANK,
    NAMED,
    NESTED,
    SIGNS,
    WORD,
    Line,
    line_of,
    names_others,
    numbers_within,
    plain,
)
from uar.llm.record import Outcome, Reply
from uar.llm.replies import unread

AS_ASKED = re.compile(r"My selection:\[(?:\[\d{1,9}\](?:,\[\d{1,9}\])*)?\]")
LABEL = re.compile(
    rf"my[\s_]+(?:final\s+)?selection"
    rf"(?:\s+(?:is|would\s+be)(?:\s|{SIGNS})*(?:[:=]|(?=\[))|(?:\s|{SIGNS})*[:=])",
    re.IGNORECASE,
)
NOT_IN = re.compile(r"\bnot\s+(?:in\s+)?$", re.IGNORECASE)  # before a label
LEAD = re.compile(
    rf"(?:\s|{SIGNS}|json\b)*(?:(?:my|the)[\s_]+)?(?:final[\s_]+)?"
    rf"(?:selection|selected(?:[\s_]+passages?)?|relevant[\s_]+passages?|ranking|answer)?(?:[\s:=]|{SIGNS})*",
    re.IGNORECASE,
)
REASON = re.compile(rf"(?:[ \t]|{SIGNS})*[-–—:(]")
FOLLOWS = re.compile(  # what may stand behind a list: nothing, a reason, another sentence, other fields of an object
    rf"[\])]*{BLANK.pattern}$"
    rf"|(?:[ \t]|{SIGNS})*(?:[-–—:(.!。A-Z]|[,;]?\s*(?:because|since|as|for|which|so|is|are)\b|[,;]?\s*因|<[|/]|,\s*[\"'])"
)
GRADE = re.compile(r"(?:(?<!\w)[-−])?\d+(?:[.,]\d+|\s*/\s*\d+|\s+(?:out\s+)?of\s+\d+)*[%+]?")
REASONED = re.compile(
    r"[^\w<>≤≥~≈±]*(?:<?grade\b[^\w<>≤≥~≈±]*>?)?(?<![-−])(\d+)"
    r"(?![\w%]|[.,/]\d|\s*[/?]|[^\w\n]*(?:(?:or|to|and|of)\b\D{0,3})?\d{1,2}(?!\d))\W*(.*)",
    re.IGNORECASE | re.DOTALL,
)
OTHER_GRADE = re.compile(r"\bgrade\W{0,4}(?:is\W+)?(\d+)", re.IGNORECASE)
READ = 64  # replies that are remembered, since one is checked, counted and read

GAP = rf"(?:\s|{SIGNS})*"
MORE, TIE = r"(?:=?>+=?|->|[≥≫≻→])", r"(?:={1,2}|[≈~,/&]|and\b)"
ITEM, PLAIN = rf"\[\s*(?:{WORD})?\d+\s*\]", rf"(?:{WORD})?\d+(?![\w.]*\d|\w)"
DOTS = r"(?:…|\.\.\.+|\[\s*(?:…|\.\.\.)\s*\])"
RUN = re.compile(
    rf"(?:{ITEM}|{PLAIN}(?={GAP}{MORE}))(?:{GAP}{MORE}{GAP}(?:{ITEM}|{PLAIN}|{DOTS})|{GAP}{TIE}{GAP}{ITEM})+", re.IGNORECASE
)
JOINT = r"[<>=≤≥≈~≻→]"
JOINED_BEFORE = re.compile(rf"(.*?){JOINT}+{GAP}", re.DOTALL)
JOINED_AFTER = re.compile(rf"{GAP}{JOINT}")
BESIDE = re.compile(r"[^\w.!?]*")


def parse_selection(reply: Reply, numbers: Numbers[int]) -> tuple[Outcome, list[int]]:
    """Passage numbers, in the order given, of a reply such as `My selection:[[2],[5]]`; `numbers` are those allowed.

    What counts is the list that stands directly after the last `My selection:`, whatever else the reply says: in the form
    asked for or another usual one (`[2], [5]`, `[2] and [5]`, `[2]-[5]`, one a line, each with a reason after it). Without
    these words the reply must be a list and nothing else. `My selection:[]` is a good reply that selects nothing.

    A list is never shortened. One within brackets of its own is complete, and prose after it may name other passages. After a
    list without these, another passage in the same sentence, or at the head of the next sentence or line, makes the reply
    unparsable; so does a reason that may be one against the passage, see `is_doubtful`. Directly after a list only a reason or
    another sentence may stand, so that none is read whose exceptions (`but not [5]`) or end (`and others`) are not; nor is one
    that the reply takes back afterwards.
    """
    return _outcome(reply, _selection(reply.text), numbers)


@lru_cache(maxsize=READ)
def _selection(text: str) -> list[int] | None:
    if AS_ASKED.fullmatch(text):
        return [int(n) for n in re.findall(r"\d+", text)]
    text = plain(text)
    labels = [found for found in LABEL.finditer(text) if not NOT_IN.search(text, max(0, found.start() - 8), found.start())]
    return _selected(text[labels[-1].end() :]) if labels else _bare_list(text)


def parse_ranking(reply: Reply, numbers: Numbers[int]) -> tuple[Outcome, list[int], list[int]]:
    """All of `numbers` in the order of a reply such as `[2] > [5] > [1]`, and those of them that it leaves out, which follow
    as they stand, or take the place of its dots.

    What counts is the run of `>` that names the most passages, of equal ones the last; equals (`[5] = [1]`) keep their order.
    Where something that is not read is joined to the run, or a passage that is not read stands before or beside it, the reply
    is unparsable: it may be the first choice. So is one that says it begins with the worst, or that contradicts itself later.
    Without a run the reply must be a list and nothing else. A ranking that leaves out passages is good: those that it names
    are in order. Whoever takes the best of it takes none that it left out.
    """
    found = _ranking(reply.text)
    outcome, named = _outcome(reply, None if found is None else found.before + found.after, numbers)
    if outcome != Outcome.OK or found is None:
        return outcome, [], []
    left_out = [n for n in numbers if n not in named]
    return outcome, list(dict.fromkeys([*found.before, *left_out, *found.after])), left_out


@lru_cache(maxsize=READ)
def _ranking(text: str) -> "_Ranked | None":
    return _ranked(plain(text))


def parse_grade(reply: Reply, grades: Numbers[int]) -> tuple[Outcome, int | None]:
    """The one grade that a reply such as `2` or `Grade: 2` names. `1.0` is 1; a fraction, as `1.5` or `2/3`, is no grade, nor
    is a number that the reply doubts, denies or bounds, as `2?`, `not 2` or `at least 2`."""
    if reply.outcome != Outcome.OK:
        return reply.outcome, None
    named = list(GRADE.finditer(reply.text))
    found = {number.group() for number in named}
    if len(found) != 1:
        return unread(reply.text), None
    whole = re.fullmatch(r"([-−]?)(\d+)(?:\.0+)?", found.pop())
    if not whole or any(_is_bound(reply.text, number) for number in named):
        return Outcome.UNPARSABLE, None
    grade = int(whole[2][:9]) * (-1 if whole[1] else 1)
    return (Outcome.OK, grade) if grade in grades else (Outcome.OUT_OF_RANGE, None)


def _is_bound(text: str, number: re.Match[str]) -> bool:
    """Whether a number is one that a reply doubts, denies or bounds, or a part of a word."""
    before, after = text[: number.start()], text[number.end() :]
    return bool(BOUNDS.search(before) or re.search("[A-Za-z]$", before) or re.match(r"\s*\?|[A-Za-z½¼¾]", after))


def parse_reasoned_grade(reply: Reply, grades: Numbers[int]) -> tuple[Outcome, int | None, str]:
    """The grade that a reply such as `2\nIt names the year.` begins with, and the reason that follows, which may be empty and
    names no other grade."""
    if reply.outcome != Outcome.OK:
        return reply.outcome, None, ""
    opening = REASONED.match(reply.text)
    if not opening:
        return unread(reply.text), None, ""
    grade = int(opening[1][:9])
    if any(int(other[:9]) != grade for other in OTHER_GRADE.findall(opening[2])):
        return Outcome.UNPARSABLE, None, ""
    if grade not in grades:
        return Outcome.OUT_OF_RANGE, None, ""
    return Outcome.OK, grade, " ".join(opening[2].split())


def _outcome(reply: Reply, found: list[int] | None, numbers: Numbers[int]) -> tuple[Outcome, list[int]]:
    if reply.outcome != Outcome.OK:
        return reply.outcome, []
    if found is None:
        return unread(reply.text), []
    if not set(found).issubset(numbers):
        return Outcome.OUT_OF_RANGE, []
    return Outcome.OK, list(dict.fromkeys(found))


def _selected(text: str) -> list[int] | None:
    """The list that a text begins with, by the rule of `parse_selection`."""
    lines = [line for line in text.splitlines() if not BLANK.fullmatch(line)]
    listing = [line for line in takewhile(lambda line: line is not None, map(line_of, lines)) if line is not None]
    if not listing or not FOLLOWS.match(listing[0].rest) or begins_with_denial(listing[0].rest):
        return None
    first, after = listing[0], lines[len(listing) :]
    listed = _listed(listing)
    if listed is None or any(is_doubtful(aside) or names_others(aside, listed.numbers) for aside in listed.asides):
        return None
    unread = "\n".join([first.rest, *lines[listed.lines :]])
    goes_on = not first.complete and any(line and line.alone and _adds(line, listed.numbers) for line in map(line_of, after))
    return None if goes_on or _revises(unread, listed.numbers) else listed.numbers


class _Listed(NamedTuple):
    """What the first `lines` of some lines list together, and the reasons that stand beside passages."""

    numbers: list[int]
    asides: list[str]
    lines: int


def _listed(listing: Sequence[Line]) -> _Listed | None:
    """What lines list that each begin with a list: the first one's passages, and those of the next that go on with it. None
    where a later one, which does not, names others."""
    first, *more = listing
    numbers, asides = list(first.numbers), list(first.asides)
    reasons = bool(asides) or REASON.match(first.rest) is not None
    each_has_one = reasons and not first.complete
    if each_has_one:
        asides.append(first.rest)
    if not first.complete and not reasons and not first.alone and _sentence_adds(first.rest, numbers):
        return None
    within = 1 if first.alone or reasons else 0  # lines of the list; 0: its sentence goes on with prose
    for at, line in enumerate(more, start=1):
        goes_on = within == at
        if goes_on and line.alone:
            if line.numbers and not numbers:
                return None
        elif goes_on and each_has_one and (line.asides or REASON.match(line.rest)):
            asides += [*line.asides, line.rest]
        elif _adds(line, numbers) and (line.complete or not first.complete):
            return None
        else:
            continue
        numbers, within = numbers + line.numbers, at + 1
    return _Listed(numbers, [aside for aside in asides if not BLANK.fullmatch(aside)], max(1, within))


def _adds(line: Line, numbers: Numbers[int]) -> bool:
    return not set(line.numbers).issubset(numbers)


def _sentence_adds(rest: str, numbers: Numbers[int]) -> bool:
    """Whether the sentence that a list stands in goes on to name another passage, or a later one begins with another."""
    sentence, *later = re.split(r"(?<=[.!?])\s+|(?<=。)", rest)
    begun = [line for line in map(line_of, later) if line is not None]
    return names_others(sentence, numbers) or any(_adds(line, numbers) for line in begun)


def _revises(text: str, numbers: Numbers[int]) -> bool:
    """Whether what follows a list takes it back: says so, or has another list in the form that was asked for."""
    lists = map(numbers_within, NESTED.findall(text))
    return takes_back(text) or any(found is not None and set(found) != set(numbers) for found in lists)


def _bare_list(text: str) -> list[int] | None:
    """The list in a reply that is one, but for a word that leads to it and signs around it."""
    lead = LEAD.match(text)
    lines = [line_of(line) for line in text[lead.end() if lead else 0 :].splitlines() if not BLANK.fullmatch(line)]
    listed = [line for line in lines if line is not None and line.alone]
    return [n for line in listed for n in line.numbers] if lines and len(listed) == len(lines) else None


class _Ranked(NamedTuple):
    """The passages that a ranking names before its dots and after them; without dots all are before."""

    before: list[int]
    after: list[int]


def _ranked(text: str) -> _Ranked | None:
    runs = [run for run in RUN.finditer(text) if re.search(MORE, run.group()) and NAMED.search(run.group())]
    if not runs:
        listed = _bare_list(text)
        return _Ranked(listed, []) if listed else None
    run = max(reversed(runs), key=lambda run: len(set(_numbers(run.group()))))
    before, *after = (_numbers(part) for part in re.split(DOTS, run.group()))
    named = [*before, *(n for part in after for n in part)]
    twice = len(set(named)) < len(named) and re.search(rf"{TIE}", run.group())
    later = [_numbers(other.group()) for other in runs if other.start() > run.start()]
    if twice or _continues(text, run, named) or any(_contradicts(other, named) for other in later):
        return None
    return _Ranked(before, named[len(before) :])


def _numbers(text: str) -> list[int]:
    return [int(n[:9]) for n in re.findall(r"\d+", text)]


def _contradicts(other: Sequence[int], order: Sequence[int]) -> bool:
    """Whether a ranking puts two passages the other way round than `order`."""
    places = [order.index(n) for n in dict.fromkeys(other) if n in order]
    return places != sorted(places)


def _continues(text: str, run: re.Match[str], named: Numbers[int]) -> bool:
    """Whether a run is a part of something longer, or not in the order asked for: joined to what is no passage, behind or
    beside a passage that it does not name, or said to begin with the worst."""
    before, after = text[: run.start()], text[run.end() :]
    joined = JOINED_BEFORE.fullmatch(before.rpartition("\n")[2])
    if joined and not LEAD.fullmatch(joined[1]):
        return True
    if names_others(before, named) or BACKWARDS.search(before) or BACKWARDS.search(after):
        return True
    gaps = [after[: other.start()] for other in NAMED.finditer(after) if int(other[1][:9]) not in named]
    return any(BESIDE.fullmatch(gap) or ("\n" not in gap and JOINED_AFTER.match(gap)) for gap in gaps)


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
    return _one_of(tuple(numbers))


@lru_cache(maxsize=READ)
def _one_of(numbers: tuple[int, ...]) -> str:
    return rf"\[(?:{'|'.join(map(str, numbers))})\]"
