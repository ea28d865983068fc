"""What stands under one heading of a file."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from uar.collections.languages import words_in

SOFT_HYPHEN = re.compile(r"\xad(?:[ \t]*\n[ \t]*)?")  # which is seen, if at all, at the end of a line, and parts no word


@dataclass(frozen=True)
class Section:
    """`path`: its heading, after those that it stands under; empty for what stands before the first heading."""

    path: tuple[str, ...]
    paragraphs: tuple[str, ...]

    @property
    def words(self) -> int:
        return sum(map(words_in, self.paragraphs))


class Unreadable(Exception):
    """Why a file has no text."""


class Outline:
    """Collects the sections of a file as its headings and paragraphs come, without soft hyphens. `name`: the title of what
    stands under none; `left_out`: (why, text) of what looks like no text of the file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left_out: list[tuple[str, str]] = []
        self._open: list[tuple[int, str]] = []
        self._paragraphs: list[str] = []
        self._done: list[Section] = []

    def heading(self, level: int, text: str) -> None:
        """`level`: 1 for the highest."""
        self._end()
        text = SOFT_HYPHEN.sub("", text)
        self._open = [above for above in self._open if above[0] < level]
        if all(text != above for _, above in self._open):
            self._open.append((level, text))

    def paragraph(self, text: str) -> None:
        if re.search(r"\w", text):
            self._paragraphs.append(SOFT_HYPHEN.sub("", text).strip())

    def sections(self) -> list[Section]:
        """All of them; call it once."""
        self._end()
        return self._done

    def _end(self) -> None:
        if self._paragraphs:
            self._done.append(Section(tuple(text for _, text in self._open), tuple(self._paragraphs)))
            self._paragraphs = []


def joined(sections: Iterable[Section], least: int) -> list[list[Section]]:
    """The sections of a file in groups of `least` words or more. A short one joins those after it, the last the one before."""
    groups: list[list[Section]] = []
    words = least  # of the last group
    for section in sections:
        if words >= least:
            groups.append([])
            words = 0
        groups[-1].append(section)
        words += section.words
    if words < least and len(groups) > 1:
        rest = groups.pop()
        groups[-1] += rest
    return groups
