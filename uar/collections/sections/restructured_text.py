"""Sections of reStructuredText, of which what is markup and no text is left out."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple

from uar.collections.sections.plain_text import underlined
from uar.collections.sections.section import Outline

EXPLICIT = re.compile(r"((?:\s*(?:[*+-]|\d+[.)])(?=\s))?\s*)\.\.(?:\s+(.*))?$")  # in a list's item, too
DIRECTIVE = re.compile(r"([\w+.-]+(?::[\w+.-]+)*) ?::(?:\s+(.*))?$")
NOTE = re.compile(r"\[[^\]\s]+\]\s+(.*)$")  # a footnote or a citation
OPTION = re.compile(r"\s*:[\w-]+:(?:\s|$)")
SIGNATURE = re.compile(r"[\w.]+\(")
WITHOUT_TEXT = {
    "autosummary", "bibliography", "codeauthor", "contents", "currentmodule", "default-domain", "default-role", "digraph",
    "graphviz", "highlight", "image", "include", "index", "inheritance-diagram", "literalinclude", "mermaid", "meta",
    "minigallery", "module", "plot", "raw", "role", "sectionauthor", "sectnum", "tabularcolumns", "testcleanup",
    "testsetup", "title", "toctree",
}  # fmt: skip
CODE = {"code", "code-block", "doctest", "ipython", "math", "parsed-literal", "prompt", "sourcecode", "testcode", "testoutput"}
ARGUMENT_IS_NO_TEXT = CODE | {"container", "figure", "list-table", "only", "tab-set"}
SHOWN_AS = {"versionadded": "New in version", "versionchanged": "Changed in version", "deprecated": "Deprecated since version"}
LITERAL = re.compile(r"(?<![\w`])``(?=\S)(.+?)(?<=\S)``(?![\w`])", re.DOTALL)
PARAGRAPHS = re.compile(r"(\n[ \t]*\n)")  # no mark reaches over their end
INLINE = (
    (re.compile(r"^:(?:nocomments|nosearch|orphan|tocdepth):.*$", re.MULTILINE), ""),  # what a file says of itself
    (re.compile(r"^(\s*):([^:`\n]+):(?=\s|$)", re.MULTILINE), r"\1\2:"),  # a field
    (re.compile(r"^__ \S+$", re.MULTILINE), ""),  # a link's target
    (re.compile(r"(?<![\w.])([^\W_](?:\w*[^\W_])?)__?(?=[\s.,;:!?)\]]|$)"), r"\1"),  # a link of one word
    (re.compile(r":[\w:+.-]+:`[~!]?([^`]+?)(?:\s+<[^`>]*>)?`"), r"\1"),  # a role
    (re.compile(r"`([^`]+?)\s+<[^`>]*>`_+"), r"\1"),  # a link
    (re.compile(r"`([^`]+)`(?:_+|:[\w:+.-]+:)?"), r"\1"),
    (re.compile(r"\s?\[[#*\w.-]+\]_"), ""),  # the mark of a footnote
    (re.compile(r"(?<![\w|])\|([\w.-](?:[\w .-]*[\w.-])?)\|_*(?![\w|])"), r"\1"),  # a substitution
    (re.compile(r"(?<![\w*])(\*\*?)(?=[^\s*])([^*]*?[^\s*])\1(?![\w*])"), r"\2"),
    (re.compile(r"\\(\W)"), r"\1"),
)
GRID_ROW, LINE_OF_BLOCK = re.compile(r"(\s*)\|(.*)\|\s*$"), re.compile(r"(\s*)\|(?:\s+|$)")
DEEPEST = 100


class _Line(NamedTuple):
    text: str
    is_code: bool


def rst(text: str, outline: Outline) -> None:
    shown: list[str] = []
    for is_code, lines in groupby(_shown(text.expandtabs().splitlines()), key=lambda line: line.is_code):
        part = "\n".join(line.text for line in lines)
        shown += (part if is_code else "".join(map(_without_marks, PARAGRAPHS.split(part)))).split("\n")
    underlined(shown, outline, None)


def _without_marks(text: str) -> str:
    parts = LITERAL.split(text)
    for at in range(0, len(parts), 2):
        for pattern, shown in INLINE:
            parts[at] = pattern.sub(shown, parts[at])
    return "".join(parts)


def _shown(lines: Sequence[str], depth: int = 0) -> Iterator[_Line]:
    """`depth`: directives that the lines stand in; in more than DEEPEST they are shown as they are."""
    if depth > DEEPEST:
        yield from (_Line(line.rstrip(), False) for line in lines)
        return
    at = 0
    while at < len(lines):
        line = lines[at].rstrip()
        at += 1
        explicit = EXPLICIT.match(line)
        if explicit and (explicit[2] or "".join(lines[at : at + 1]).strip()):
            block = _block_under(len(explicit[1]), lines[at:])
            yield from _explicit(explicit[2] or "", block, depth + 1)
            at += len(block)
        elif line.endswith("::") and not explicit:
            before = line.removesuffix("::")
            yield _Line(f"{before}:" if before.strip() and before[-1:] != " " else before, False)
            block = _block_under(_indent(line), lines[at:])
            yield from (_Line(code, True) for code in block)
            at += len(block)
        elif not explicit:
            row = GRID_ROW.match(line)
            yield _Line(row[1] + row[2].strip() if row else LINE_OF_BLOCK.sub(r"\1", line), False)


def _block_under(indent: int, after: Sequence[str]) -> list[str]:
    """The lines that stand deeper, and the empty ones among them."""
    return list(takewhile(lambda line: not line.strip() or _indent(line) > indent, after))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _explicit(first: str, block: Sequence[str], depth: int) -> Iterator[_Line]:
    """What readers see of a directive or a footnote; of a link's target, a substitution and a comment they see nothing."""
    yield _Line("", False)
    directive, note = DIRECTIVE.match(first), NOTE.match(first)
    if note:
        yield from (_Line(note[1], False), *_shown(block, depth))
    elif directive:
        name, argument = directive[1].split(":")[-1], directive[2] or ""
        if name in WITHOUT_TEXT:
            return
        head = list(takewhile(str.strip, block))
        body = [*takewhile(lambda line: not OPTION.match(line), head), *block[len(head) :]]
        if argument and name not in ARGUMENT_IS_NO_TEXT and not name.startswith("auto"):
            if name in SHOWN_AS:
                version, _, change = argument.partition(" ")
                argument = f"{SHOWN_AS[name]} {version}{':' if change or any(body) else '.'} {change}"
            yield _Line(argument.rstrip(), bool(SIGNATURE.match(argument)))
        yield from (_Line(code, True) for code in body) if name in CODE else _shown(body, depth)
    yield _Line("", False)
