"""From raw replies to the passages and grades that they name; a reply that cannot be read is named, never guessed."""

import re
from collections.abc import Collection as Numbers
from functools import lru_cache
from typing import NamedTuple

from uar.llm.record import Outcome, Reply
from uar.llm.replies import unread

SIGNS = r"[*_`\"'“”‘’$\\{}]"  # that a text is dressed in: Markdown, JSON, LaTeX
WORD = r"(?:passages?|documents?|docs?)\b[ \t#:]*"
ASCII = str.maketrans("【】［］〔〕（）：；，、＞", "[][][]():;,,>")
NO = re.compile(
    r"\b(?:no|not|nor|none|never|neither|cannot|irrelevant|unrelated|useless|unhelpful|off[- ]topic|excluded?|omitted)\b"
    r"|n['’]t\b|不|没|无|無",
    re.IGNORECASE,
)
NAMED = re.compile(rf"\[\s*(?:{WORD})?(\d+)\s*\]", re.IGNORECASE)

AS_ASKED = re.compile(r"My selection:\[(?:\[\d{1,9}\](?:,\[\d{1,9}\])*)?\]")
LABEL = re.compile(rf"my[\s_]+(?:final\s+)?selection(?:\s+(?:is|would\s+be))?(?:\s|{SIGNS})*[:=]", re.IGNORECASE)
LEAD = re.compile(
    rf"(?:\s|{SIGNS}|json\b)*(?:(?:my|the)[\s_]+)?(?:final[\s_]+)?"
    rf"(?:selection|selected(?:[\s_]+passages?)?|relevant[\s_]+passages?|ranking|answer)?(?:[\s:=]|{SIGNS})*",
    re.IGNORECASE,
)
BLANK = re.compile(rf"(?:[\s.,;!]|{SIGNS})*(?:json)?\s*", re.IGNORECASE)
HEAD = re.compile(
    rf"(?:[ \t]|{SIGNS})*(?:[-•·–—+>]+|\(?\d{{1,3}}[.):])?(?:[ \t]|{SIGNS})*(?:{WORD})?(?:[ \t]|{SIGNS})*", re.IGNORECASE
)
BRACKETED = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]")
RANGE = r"(?:-|–|—|−|~|\bto\b|\bthrough\b)"
WITHIN = re.compile(
    rf"(?P<first>\d+)\s*\]?\s*{RANGE}\s*\[?\s*(?P<last>\d+)|(?P<one>\d+)|[\[\]\s,;/|&+]|{SIGNS}|(?:and|or)\b|{WORD}",
    re.IGNORECASE,
)
SEPARATOR = re.compile(
    rf"(?:[\s,;/|&+•·]|{SIGNS}|(?:and|or|plus|also|as\s+well\s+as)\b|[和与與及或]|{WORD}|\(?\d{{1,3}}[.)](?=\s*\[))*",
    re.IGNORECASE,
)
SPAN = re.compile(rf"{SIGNS}*(?:[-–—−~]|\s*\b(?:to|through)\b\s*){SIGNS}*(?:{WORD})?(?=\[)", re.IGNORECASE)
ASIDE = re.compile(r"\s*\([^()\n]*\)")
REASON = re.compile(rf"(?:[ \t]|{SIGNS})*[-–—:(]")
ADDS = re.compile(r"[\s,;]*(?:and|or|also|plus|maybe|perhaps|possibly|as\s+well)\b", re.IGNORECASE)
DENIES = re.compile(
    r"\s*(?:is|are|was|were|does|do|did|has|have|seems?|appears?|would|could|can|may|might|will)"
    rf"(?:n['’]t\b|(?:\s+\w+){{0,2}}\s+(?:{NO.pattern}))",
    re.IGNORECASE,
)
GRADE = re.compile(r"(?:(?<!\w)[-−])?\d+(?:[.,]\d+|\s*/\s*\d+|\s+(?:out\s+)?of\s+\d+)*[%+]?")
REASONED = re.compile(r"\W*(?:grade\b\W*)?(?<![-−])(\d+)(?![\w%]|[.,/]\d|\s*/)\W*(.*)", re.IGNORECASE | re.DOTALL)
READ = 64  # replies that are remembered, since one is checked, counted and read
LONGEST_SPAN = 1_000  # passages of a range such as [1]-[4]: more than a pool has

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
    unparsable; so does a reason that holds a no, since it may be one against the passage.
    """
    return _outcome(reply, _selection(reply.text), numbers)


@lru_cache(maxsize=READ)
def _selection(text: str) -> list[int] | None:
    if AS_ASKED.fullmatch(text):
        return [int(n) for n in re.findall(r"\d+", text)]
    text = _plain(text)
    labels = list(LABEL.finditer(text))
    return _selected(text[labels[-1].end() :]) if labels else _bare_list(text)


def parse_ranking(reply: Reply, numbers: Numbers[int]) -> tuple[Outcome, list[int], list[int]]:
    """All of `numbers` in the order of a reply such as `[2] > [5] > [1]`, and those of them that it leaves out, which follow
    as they stand, or take the place of its dots.

    What counts is the run of `>` that names the most passages, of equal ones the last; equals (`[5] = [1]`) keep their order.
    Where something that is not read is joined to the run, or a passage that is not read stands beside it, the reply is
    unparsable: it may be the first choice. Without a run the reply must be a list and nothing else. A ranking that leaves out
    passages is good: those that it names are in order. Whoever takes the best of it takes none that it left out.
    """
    found = _ranking(reply.text)
    outcome, named = _outcome(reply, None if found is None else found.before + found.after, numbers)
    if outcome != Outcome.OK or found is None:
        return outcome, [], []
    left_out = [n for n in numbers if n not in named]
    return outcome, list(dict.fromkeys([*found.before, *left_out, *found.after])), left_out


@lru_cache(maxsize=READ)
def _ranking(text: str) -> "_Ranked | None":
    return _ranked(_plain(text))


def parse_grade(reply: Reply, grades: Numbers[int]) -> tuple[Outcome, int | None]:
    """The one grade that a reply such as `2` or `Grade: 2` names. `1.0` is 1; a fraction, as `1.5` or `2/3`, is no grade."""
    if reply.outcome != Outcome.OK:
        return reply.outcome, None
    found = set(GRADE.findall(reply.text))
    if len(found) != 1:
        return unread(reply.text), None
    whole = re.fullmatch(r"([-−]?)(\d+)(?:\.0+)?", found.pop())
    if not whole:
        return Outcome.UNPARSABLE, None
    grade = int(whole[2][:9]) * (-1 if whole[1] else 1)
    return (Outcome.OK, grade) if grade in grades else (Outcome.OUT_OF_RANGE, None)


def parse_reasoned_grade(reply: Reply, grades: Numbers[int]) -> tuple[Outcome, int | None, str]:
    """The grade that a reply such as `2\nIt names the year.` begins with, and the reason that follows, which may be empty."""
    if reply.outcome != Outcome.OK:
        return reply.outcome, None, ""
    opening = REASONED.match(reply.text)
    if not opening:
        return unread(reply.text), None, ""
    grade = int(opening[1][:9])
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


def _plain(text: str) -> str:
    """A reply in ASCII brackets, without the escapes of Markdown, LaTeX and HTML; a list that is set over several lines of
    JSON stands in one."""
    text = re.sub(r"\\boxed\b|\\(?=[\[\]])", "", text.translate(ASCII)).replace("&gt;", ">").replace("&lt;", "<")
    return BRACKETED.sub(lambda found: " ".join(found.group().split()), text)


class _Line(NamedTuple):
    """What a line lists. `complete`: it has brackets of its own. `asides`: in parentheses after passages; `rest`: what follows
    the list."""

    numbers: list[int]
    complete: bool
    asides: list[str]
    rest: str

    @property
    def alone(self) -> bool:
        return not self.asides and BLANK.fullmatch(self.rest) is not None


def _line(line: str) -> _Line | None:
    """The list that a line begins with, after a bullet or number; None where it begins with none."""
    head = HEAD.match(line)
    at = end = head.end() if head else 0
    numbers: list[int] = []
    asides: list[str] = []
    complete = False
    items = list_end = 0
    span: re.Match[str] | None = None
    while (item := BRACKETED.match(line, at)) and (within := _within(item.group())) is not None:
        single = NAMED.fullmatch(item.group()) is not None
        if span:
            spanned = _spanned(numbers[-1], within[0]) if single else None
            if spanned is None:
                return None
            within = spanned[1:]
        if items and not (within and numbers):
            return None  # nothing, and then something
        numbers += within
        complete, items, end = complete or not single, items + 1, item.end()
        list_end = list_end or end
        was_span, span = span, SPAN.match(line, end) if single else None
        if span and was_span:
            return None  # [1]-[3]-[5]: a range, or dashes between passages
        aside = None if span else ASIDE.match(line, end)
        if aside:
            asides.append(aside.group())
            end = aside.end()
        after = span or SEPARATOR.match(line, end)
        at = after.end() if after else end
    if complete and items == 1:
        asides, end = [], list_end  # what stands in parentheses after a whole list is no reason of one passage
    return _Line(numbers, complete, asides, line[end:]) if items else None


def _within(brackets: str) -> list[int] | None:
    """The numbers within brackets; None where these hold something else."""
    numbers: list[int] = []
    at = 0
    while at < len(brackets):
        token = WITHIN.match(brackets, at)
        if token is None:
            return None
        at = token.end()
        if token["one"]:
            numbers.append(int(token["one"][:9]))
        elif token["first"]:
            spanned = _spanned(int(token["first"][:9]), int(token["last"][:9]))
            if spanned is None:
                return None
            numbers += spanned
    return numbers


def _spanned(first: int, last: int) -> list[int] | None:
    return list(range(first, min(last, first + LONGEST_SPAN) + 1)) if first < last else None


def _selected(text: str) -> list[int] | None:
    """The list that a text begins with, by the rule of `parse_selection`."""
    lines = [line for line in text.splitlines() if not BLANK.fullmatch(line)]
    found = _line(lines[0]) if lines else None
    if found is None:
        return None
    numbers, asides = found.numbers, list(found.asides)
    reasons = bool(asides) or REASON.match(found.rest) is not None
    prose = False
    if DENIES.match(found.rest):
        return None
    if found.complete:
        if ADDS.match(found.rest) and _others(found.rest, numbers):
            return None
    elif reasons:
        asides.append(found.rest)
    elif not found.alone:
        prose = True
        sentence, *later = re.split(r"(?<=[.!?])\s+|(?<=。)", found.rest)
        if _others(sentence, numbers) or any(_begins_with_other(s, numbers) for s in later):
            return None
    for line in map(_line, lines[1:]):
        if line is None:
            break
        if line.alone and not prose:
            if not numbers and line.numbers:
                return None
            numbers = numbers + line.numbers
        elif not found.complete and reasons and not prose and (line.asides or REASON.match(line.rest)):
            numbers = numbers + line.numbers
            asides += [*line.asides, line.rest]
        elif set(line.numbers) - set(numbers) and (line.complete or not found.complete):
            return None
        else:
            prose = True
    if any(NO.search(aside) or _others(aside, numbers) for aside in asides):
        return None
    return numbers


def _others(text: str, numbers: Numbers[int]) -> bool:
    """Whether a text names a passage that is not among `numbers`."""
    return any(int(n[:9]) not in numbers for n in NAMED.findall(text))


def _begins_with_other(sentence: str, numbers: Numbers[int]) -> bool:
    line = _line(sentence)
    return line is not None and bool(set(line.numbers) - set(numbers))


def _bare_list(text: str) -> list[int] | None:
    """The list in a reply that is one, but for a word that leads to it and signs around it."""
    lead = LEAD.match(text)
    lines = [_line(line) for line in text[lead.end() if lead else 0 :].splitlines() if not BLANK.fullmatch(line)]
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
    run = max(reversed(runs), key=lambda run: len(set(re.findall(r"\d+", run.group()))))
    before, *after = ([int(n[:9]) for n in re.findall(r"\d+", part)] for part in re.split(DOTS, run.group()))
    named = [*before, *(n for part in after for n in part)]
    twice = len(set(named)) < len(named) and re.search(rf"{TIE}", run.group())
    return None if twice or _continues(text, run, named) else _Ranked(before, named[len(before) :])


def _continues(text: str, run: re.Match[str], named: Numbers[int]) -> bool:
    """Whether a run is a part of something longer: joined to what is no passage, or beside a passage that it does not name."""
    joined = JOINED_BEFORE.fullmatch(text[: run.start()].rpartition("\n")[2])
    lead = LEAD.fullmatch(joined[1]) if joined else None
    if joined and not lead:
        return True
    for other in NAMED.finditer(text):
        if int(other[1][:9]) in named:
            continue
        gap = text[other.end() : run.start()] if other.start() < run.start() else text[run.end() : other.start()]
        if BESIDE.fullmatch(gap) or (other.start() > run.start() and "\n" not in gap and JOINED_AFTER.match(gap)):
            return True
    return False


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
