"""Sections of a PDF, whose headings are its bookmarks."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import regex

from uar.collections.sections.plain_text import without_contents
from uar.collections.sections.section import Outline, Unreadable

HYPHEN = regex.compile(r"(?<=\p{Ll})-\n(?=\p{Ll})")
NUMBER = r"(?:(?:\d+|[A-Z])(?:\.\d+)*\.?\s+)?"  # of a heading, which its bookmark may lack
PAGE_NUMBER = re.compile(r"\W*(?:\d{1,4}|[ivxlc]+)\W*")
RUNNING_LINE, BLANK = "head or foot of a page", "page without text"
OFTEN = 3  # pages that a running line stands on, at least
EXTRA = "pip install 'uar[files]'"


def pdf(path: Path, outline: Outline) -> None:
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise Unreadable(f"a PDF, which needs: {EXTRA}") from error
    try:
        reader = PdfReader(path)
        pages = [page.extract_text() for page in reader.pages]
        bookmarks = list(_bookmarks(reader, reader.outline))
    except Exception as error:  # what pypdf raises over a broken or locked file depends on where it trips
        raise Unreadable(f"a PDF that cannot be read ({type(error).__name__}: {error})") from error
    if any(map(str.strip, pages)):  # a file that has no text at all is left out as one
        blank = [number for number, page in enumerate(pages, start=1) if not page.strip()]
        outline.left_out += ((BLANK, f"page {number}, which may be a picture of one") for number in blank)
    title = reader.metadata.title if reader.metadata else None
    if title and title.strip():
        outline.heading(1, title.strip())
    lines = [without_contents(page.strip().splitlines(), outline) for page in pages]
    _read(_without_running_lines(lines, outline), bookmarks, outline)


def _bookmarks(reader: Any, entries: Iterable[Any], level: int = 2) -> Iterator[tuple[int | None, int, str]]:
    """(page, level, heading), those of a list under the one before it."""
    for entry in entries:
        if isinstance(entry, list):
            yield from _bookmarks(reader, entry, level + 1)
        elif entry.title and entry.title.strip():
            yield reader.get_destination_page_number(entry), level, " ".join(entry.title.split())


def _without_running_lines(pages: list[list[str]], outline: Outline) -> list[list[str]]:
    """The lines of each page without those at its head and foot that stand on others too, numbers aside."""
    often = Counter(shape for page in pages for shape in {_shape(line) for line in (*page[:1], *page[-1:])})
    for page in pages:
        for at in (0, -1):
            while page and (PAGE_NUMBER.fullmatch(page[at]) or (often[_shape(page[at])] >= OFTEN and _shape(page[at]))):
                outline.left_out.append((RUNNING_LINE, page.pop(at)))
    return pages


def _shape(line: str) -> str:
    """Its words, of which a row of a table may have none."""
    return re.sub(r"[\W\d_]+", " ", line).strip()


def _read(pages: list[list[str]], bookmarks: list[tuple[int | None, int, str]], outline: Outline) -> None:
    on_page: dict[int | None, list[tuple[int, str]]] = defaultdict(list)
    for number, level, heading in bookmarks:
        on_page[number].append((level, heading))
    text = ""
    for number, lines in enumerate(pages):
        page = "\n".join(lines)
        if not _goes_on(text, page):
            text = _paragraphs(text, outline)
        for level, heading in on_page[number]:
            words = r"\s+".join(map(re.escape, heading.split()))
            there = re.search(rf"^\s*{NUMBER}{words}\s*$", page, re.MULTILINE | re.IGNORECASE)
            text = _paragraphs(f"{text}\n{page[: there.start()] if there else ''}", outline)
            page = page[there.end() :] if there else page
            outline.heading(level, heading)
        text = f"{text}\n{page}"
    _paragraphs(text, outline)


def _goes_on(text: str, page: str) -> bool:
    """Whether the last sentence of a text goes on with the next page."""
    return text.endswith("-") or (text[-1:] not in set(".!?…:") and page[:1].islower())


def _paragraphs(text: str, outline: Outline) -> str:
    for paragraph in re.split(r"\n\s*\n", HYPHEN.sub("", text)):
        outline.paragraph(paragraph)
    return ""
