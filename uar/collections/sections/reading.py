"""A file as sections, by the ending of its name."""

import re
from collections.abc import Callable
from pathlib import Path

from uar.collections.sections.decoding import AUTO, decoded, readable
from uar.collections.sections.markup import markdown, plain, rst
from uar.collections.sections.section import Outline, Section
from uar.collections.sections.web_page import web_page

READERS: dict[str, Callable[[str, Outline], None] | None] = {
    ".txt": plain, ".md": markdown, ".rst": rst, ".html": web_page, ".htm": web_page, ".pdf": None,
}  # fmt: skip
HYPHEN = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
EXTRA = "pip install 'uar[files]'"


class Unreadable(Exception):
    """Why a file has no text."""


def read_sections(path: Path, encoding: str = AUTO) -> tuple[list[Section], str]:
    """The sections of a file, and the name of the encoding that it is in."""
    outline = Outline(" ".join(re.split(r"[\s_-]+", readable(path.stem))).strip())
    reader = READERS[path.suffix.lower()]
    if reader is None:
        _pdf(path, outline)
        return outline.sections(), "pdf"
    found = decoded(path.read_bytes(), encoding)
    if found is None:
        raise Unreadable(f"in no known encoding; name it with encoding=, such as encoding=cp1252 (now {encoding})")
    reader(found[0], outline)
    return outline.sections(), found[1]


def _pdf(path: Path, outline: Outline) -> None:
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise Unreadable(f"a PDF, which needs: {EXTRA}") from error
    try:
        reader = PdfReader(path)
        pages = [page.extract_text() for page in reader.pages]
    except Exception as error:  # what pypdf raises over a broken or locked file depends on where it trips
        raise Unreadable(f"a PDF that cannot be read ({type(error).__name__}: {error})") from error
    title = reader.metadata.title if reader.metadata else None
    if title and title.strip():
        outline.heading(1, title.strip())
    for page in pages:
        for paragraph in re.split(r"\n\s*\n", HYPHEN.sub("", page)):
            outline.paragraph(paragraph)
