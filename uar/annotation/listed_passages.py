"""The passages that a line of a reply lists: `[1], [3]`, `[[1],[3]]`, `[1]-[3]`, one after a bullet, each with an aside."""

import re
from collections.abc import Collection as Numbers
from typing import NamedTuple

SIGNS = r"[*_`\"'“”‘’$\\{}]"  # that a text is dressed in: Markdown, JSON, LaTeX
WORD = r"(?:passages?|documents?|docs?)\b[ \t#:]*"
ASCII = str.maketrans("【】［］〔〕（）：；，、＞", "[][][]():;,,>")
NAMED = re.compile(rf"\[\s*(?:{WORD})?(\d+)\s*\]", re.IGNORECASE)
BLANK = re.compile(rf"(?:[\s,;!]|\.(?!\.)|{SIGNS})*(?:json)?\s*", re.IGNORECASE)
BRACKETED = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]")
NESTED = re.compile(r"\[\s*(?=\[)(?:[^\[\]]|\[[^\[\]]*\])*\]")
HEAD = re.compile(
    rf"(?:[ \t]|{SIGNS})*(?:[-•·–—+>]+|\(?\d{{1,3}}[.):])?(?:[ \t]|{SIGNS})*(?:{WORD})?(?:[ \t]|{SIGNS})*", re.IGNORECASE
)
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
LONGEST_SPAN = 1_000  # passages of a range such as [1]-[4]: more than a pool has


def plain(text: str) -> str:
    """A reply in ASCII brackets, without the escapes of Markdown, LaTeX and HTML; a list that is set over several lines of
    JSON stands in one."""
    text = re.sub(r"\\boxed\b|\\(?=[\[\]])", "", text.translate(ASCII)).replace("&gt;", ">").replace("&lt;", "<")
    return BRACKETED.sub(lambda found: " ".join(found.group().split()), text)


class Line(NamedTuple):
    """What a line lists. `complete`: it has brackets of its own. `asides`: in parentheses after passages; `rest`: what follows
    the list."""

    numbers: list[int]
    complete: bool
    asides: list[str]
    rest: str

    @property
    def alone(self) -> bool:
        return not self.asides and BLANK.fullmatch(self.rest) is not None


def line_of(line: str) -> Line | None:
    """The list that a line begins with, after a bullet or number; None where it begins with none."""
    head = HEAD.match(line)
    at = end = head.end() if head else 0
    numbers: list[int] = []
    asides: list[str] = []
    complete = False
    items = list_end = 0
    span: re.Match[str] | None = None
    while (item := BRACKETED.match(line, at)) and (within := numbers_within(item.group())) is not None:
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
    return Line(numbers, complete, asides, line[end:]) if items else None


def numbers_within(brackets: str) -> list[int] | None:
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


def names_others(text: str, numbers: Numbers[int]) -> bool:
    """Whether a text names a passage that is not among `numbers`."""
    return any(int(n[:9]) not in numbers for n in NAMED.findall(text))
