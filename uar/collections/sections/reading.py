"""A file as sections, by the ending of its name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from uar.collections.sections.decoding import AUTO, decoded, readable
from uar.collections.sections.markdown_text import markdown
from uar.collections.sections.pdf import pdf
from uar.collections.sections.plain_text import plain
from uar.collections.sections.restructured_text import rst
from uar.collections.sections.section import Outline, Section, Unreadable
from uar.collections.sections.web_page import web_page

RST_IN_TEXT = re.compile(r"^\.\. (?:(?:\|[^|\n]+\| )?[\w:-]+::(?:\s|$)|_[^\s:]+:)", re.MULTILINE)


def _text(text: str, outline: Outline) -> None:
    """Some documentation calls its reStructuredText .txt."""
    (rst if RST_IN_TEXT.search(text) else plain)(text, outline)


READERS: dict[str, Callable[[str, Outline], None] | None] = {
    ".txt": _text, ".md": markdown, ".rst": rst, ".html": web_page, ".htm": web_page, ".pdf": None,
}  # fmt: skip
PDF = "pdf"


class Document(NamedTuple):
    """A file that was read. `name`: the title of what stands under no heading; `nuls`: signs that were taken out;
    `left_out`: (why, text) of what looks like none of its text."""

    name: str
    sections: list[Section]
    left_out: list[tuple[str, str]]
    encoding: str
    nuls: int = 0


def read_document(path: Path, encoding: str = AUTO) -> Document:
    """Raises `Unreadable`."""
    outline = Outline(" ".join(re.split(r"[\s_-]+", readable(path.stem))).strip())
    reader = READERS[path.suffix.lower()]
    if reader is None:
        pdf(path, outline)
        return Document(outline.name, outline.sections(), outline.left_out, PDF)
    found = decoded(path.read_bytes(), encoding)
    if found is None:
        raise Unreadable(f"in no known encoding; name it with encoding=, such as encoding=cp1252 (now {encoding})")
    reader(found.text, outline)
    return Document(outline.name, outline.sections(), outline.left_out, found.encoding, found.nuls)
