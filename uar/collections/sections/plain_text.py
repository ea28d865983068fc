"""Sections of text whose headings are underlined."""

import re
from collections.abc import Iterator, Sequence

from uar.collections.sections.section import Outline

UNDERLINE = re.compile(r"([=\-~^\"'`*+#:.<>_])\1{2,}\s*$")
RULE = re.compile(r"(?=.*([=\-_*~#+])\1\1)[=\-_*~#+|:\s]+$")  # between parts, or of a table
CONTENTS = re.compile(r"(?:^|[^\s.])(?:\s?\.){5,}\s*[\divxlc]*\s*$")  # dots, and the page that they lead to
LINE_OF_CONTENTS = "line of contents"
OF_PLAIN_TEXT = "=-"


def plain(text: str, outline: Outline) -> None:
    """Headings are the lines that are underlined with = or -."""
    underlined(without_contents(text.splitlines(), outline), outline, OF_PLAIN_TEXT)


def without_contents(lines: Sequence[str], outline: Outline) -> list[str]:
    outline.left_out += ((LINE_OF_CONTENTS, line.strip()) for line in lines if CONTENTS.search(line))
    return [line for line in lines if not CONTENTS.search(line)]


def underlined(lines: Sequence[str], outline: Outline, marks: str | None) -> None:
    """`marks`: characters under headings, from the highest; None: any, and the first that is met is the highest."""
    for level, text in _blocks(lines, list(marks or ""), marks is None):
        if level:
            outline.heading(level, text)
        else:
            outline.paragraph(text)


def _blocks(lines: Sequence[str], order: list[str], any_mark: bool) -> Iterator[tuple[int, str]]:
    """(level, text), level 0 for a paragraph."""
    paragraph: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        under = UNDERLINE.match(lines[at + 1]) if at + 1 < len(lines) and line.strip() and not paragraph else None
        flush = line[:1] != " " or (any_mark and at > 0 and UNDERLINE.match(lines[at - 1]))
        if (
            under
            and flush
            and not RULE.match(line)
            and (any_mark or under[1] in order)
            and len(under[0].rstrip()) >= min(3, len(line.rstrip()))
        ):
            if under[1] not in order:
                order.append(under[1])
            yield order.index(under[1]) + 1, line.strip()
            at += 1
        elif line.strip() and not RULE.match(line) and not (any_mark and UNDERLINE.match(line)):
            paragraph.append(line)
        else:  # a rule is the line over a heading, too
            yield 0, "\n".join(paragraph)
            paragraph = []
        at += 1
    yield 0, "\n".join(paragraph)
