"""Sections of plain text, Markdown and reStructuredText, of which what is markup and no text is left out."""

import re
from collections.abc import Callable, Iterator

from uar.collections.sections.section import Outline

HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
FENCE = re.compile(r"\s*(```+|~~~+)")
UNDERLINE = re.compile(r"([=\-~^\"'`*+#:.<>_])\1{2,}\s*$")
OF_MARKDOWN = "=-"  # underlines
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
TAGS = "a|b|br|center|details|div|em|h[1-6]|i|img|kbd|p|picture|source|span|strong|sub|summary|sup"
DIRECTIVE = r"\w[\w-]*::.*|_[^\n]*|\|[^\n]*|\[[^\n]*"  # or the target of a link, a substitution, a footnote
NO_TEXT_OF_MARKDOWN = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),  # a picture
    (re.compile(r"\[([^\[\]]*)\](?:\([^()\s]*(?:\s+\"[^\"]*\")?\)|\[[^\]]*\])"), r"\1"),  # a link
    (re.compile(r"^\[[^\]]+\]:\s+\S+.*$", re.MULTILINE), ""),  # a link's target
    (re.compile(rf"</?(?:{TAGS})\b[^<>]*>"), ""),
)  # fmt: skip
ADMONITION = "note|warning|tip|hint|important|caution|seealso|attention|danger|versionadded|versionchanged|deprecated"
NO_TEXT_OF_RST = (
    (re.compile(rf"^\.\. (?:{ADMONITION})::[ \t]*", re.MULTILINE), ""),
    (re.compile(rf"^\.\. (?:{DIRECTIVE})?$\n?(?:^[ \t]+:[\w-]+:.*$\n?)*", re.MULTILINE), ""),
    (re.compile(r":[\w:+.-]+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`"), r"\1"),  # a role
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_+"), r"\1"),  # a link
    (re.compile(r"``?([^`]+)``?_*"), r"\1"),
)  # fmt: skip


def plain(text: str, outline: Outline) -> None:
    """Headings are the lines that are underlined with = or -."""
    _read(text, outline, OF_MARKDOWN)


def markdown(text: str, outline: Outline) -> None:
    text = FRONT_MATTER.sub("", text.replace("\r\n", "\n"))
    _read(_outside_fences(text), outline, OF_MARKDOWN, marked=True)


def rst(text: str, outline: Outline) -> None:
    for pattern, shown in NO_TEXT_OF_RST:
        text = pattern.sub(shown, text)
    _read(text, outline, None)


def _outside_fences(text: str) -> str:
    """The text without what is no text, but for its blocks of code, which stay as they are."""
    parts: list[str] = []
    waiting: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = FENCE.match(line)
        if mark and not fence:
            parts, waiting, fence = [*parts, _without(waiting)], [], mark[1]
        elif fence and line.strip().startswith(fence):
            parts, waiting, fence = [*parts, "\n".join(f"    {code}" for code in waiting)], [], ""
        else:
            waiting.append(line)
    return "\n".join([*parts, "\n".join(waiting) if fence else _without(waiting)])


def _without(lines: list[str]) -> str:
    text = "\n".join(lines)
    for _ in range(2):  # a picture in a link
        for pattern, shown in NO_TEXT_OF_MARKDOWN:
            text = pattern.sub(shown, text)
    return text


def _read(text: str, outline: Outline, underlines: str | None, marked: bool = False) -> None:
    """`underlines`: characters under headings, from the highest; None: any, and the first that is met is the highest."""
    order = list(underlines or "")
    for kind, level, found in _blocks(text.splitlines(), order, underlines is None, marked):
        (outline.paragraph if kind == "paragraph" else _headed(outline, level))(found)


def _headed(outline: Outline, level: int) -> Callable[[str], None]:
    return lambda text: outline.heading(level, text)


def _blocks(lines: list[str], order: list[str], any_mark: bool, marked: bool) -> Iterator[tuple[str, int, str]]:
    paragraph: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        found = HEADING.match(line) if marked else None
        under = UNDERLINE.match(lines[at + 1]) if at + 1 < len(lines) and line.strip() else None
        over = UNDERLINE.match(line)
        flush = line[:1] != " " or (any_mark and at > 0 and UNDERLINE.match(lines[at - 1]))
        is_under = under and not over and not paragraph and flush and (any_mark or under[1] in order)
        if found or (is_under and under and len(under[0].rstrip()) >= min(3, len(line.rstrip()))):
            yield "paragraph", 0, "\n".join(paragraph)
            paragraph = []
            if found:
                yield "heading", len(found[1]), found[2].strip()
            elif under:
                if under[1] not in order:
                    order.append(under[1])
                yield "heading", order.index(under[1]) + 1, line.strip()
                at += 1
        elif not line.strip():
            yield "paragraph", 0, "\n".join(paragraph)
            paragraph = []
        elif not (over and any_mark):  # the line over a heading, or a rule
            paragraph.append(line)
        at += 1
    yield "paragraph", 0, "\n".join(paragraph)
