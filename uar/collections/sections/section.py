"""What stands under one heading of a file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uar.collections.languages import words_in


@dataclass(frozen=True)
class Section:
    """`title`: the heading with the file's first one before it; `heading`: its own, empty for the file's beginning."""

    title: str
    heading: str
    paragraphs: tuple[str, ...]

    @property
    def words(self) -> int:
        return sum(map(words_in, self.paragraphs))


class Outline:
    """Collects the sections of a file as its headings and paragraphs come. `name`: the title of what stands before the first
    heading."""

    def __init__(self, name: str) -> None:
        self._name = self._title = name
        self._heading = ""
        self._top: tuple[int, str] | None = None
        self._paragraphs: list[str] = []
        self._done: list[Section] = []

    def heading(self, level: int, text: str) -> None:
        """`level`: 1 for the highest."""
        self._end()
        if self._top is None or level <= self._top[0]:
            self._top = level, text
        self._heading = text
        self._title = text if self._top[1] == text else f"{self._top[1]}: {text}"

    def paragraph(self, text: str) -> None:
        if text.strip():
            self._paragraphs.append(text.strip())

    def sections(self) -> list[Section]:
        """All of them; call it once."""
        self._end()
        return self._done

    def _end(self) -> None:
        if self._paragraphs:
            self._done.append(Section(self._title, self._heading, tuple(self._paragraphs)))
            self._paragraphs = []


def joined(sections: Iterable[Section], least: int) -> list[Section]:
    """The sections of a file, where one of fewer than `least` words joins the one before it, else the one after it. The
    heading of the later one becomes a line of the text; the title is that of the longer."""
    found: list[Section] = []
    for section in sections:
        if found and min(found[-1].words, section.words) < least:
            found[-1] = _together(found[-1], section)
        else:
            found.append(section)
    return found


def _together(first: Section, second: Section) -> Section:
    longer = second if second.words > first.words else first
    paragraphs: Sequence[str] = second.paragraphs
    if second.heading and longer is first:
        paragraphs = (f"{second.heading}\n{second.paragraphs[0]}", *second.paragraphs[1:])
    return Section(longer.title, first.heading, (*first.paragraphs, *paragraphs))
