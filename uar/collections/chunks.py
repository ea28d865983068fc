"""Sections cut into passages of like length, where they are best cut: between paragraphs, else between sentences."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from math import ceil
from os.path import commonprefix
from typing import NamedTuple

import regex

from uar.collections.languages import UNSPACED, parts_of, words_in
from uar.collections.sections import Section

SENTENCE_END = regex.compile(
    r"(?<=[.!?…][)\]\"'»”’]*)\s+(?=[\p{Lu}\p{Lo}\p{N}\"'“«(\[])"  # of scripts with spaces
    r"|(?<=[。！？][」』）]*)(?![」』）])"
    r"|\n(?=\s*(?:[-*•+]|\d+[.)])\s)"  # an item of a list
)
UNPARTED = regex.compile(rf"(?<=[{UNSPACED}。！？、，」』）]) (?=[{UNSPACED}「『（])")
SENTENCE, WITHIN, SHORT = 0.5, 2.0, 10.0  # costs of a cut between sentences, within one, and of a passage that is too short
COLON, SENTENCE_SIGNS = ": ", tuple(".!?:,;…。！？：")


class _Piece(NamedTuple):
    """`section`: its number; `heading`: words of the headings that may stand before it; `cut`: the cost of a cut before it."""

    section: int
    text: str
    words: int
    heading: int
    cut: float


def chunks(sections: Sequence[Section], most: int, least: int) -> list[tuple[str, str]]:
    """(title, text) of passages of at most `most` words. They are as few as that allows and of like length, and none is
    shorter than `least` where it can be helped. A sentence is cut only where no other cut can do that.

    A title is the headings that the whole passage stands under; those of a section that begins in it stand in its text.
    """
    shared = len(commonprefix([section.path for section in sections]))
    pieces = [piece for at, section in enumerate(sections) for piece in _pieces(at, section, shared, most)]
    if not pieces:
        return []
    words = [0, *accumulate(piece.words for piece in pieces)]
    headings = [0, *accumulate(piece.heading for piece in pieces)]
    total = words[-1] + headings[-1]
    target = total / ceil(total / most)
    best = [0.0] + [float("inf")] * len(pieces)
    start = [0] * (len(pieces) + 1)
    for end in range(1, len(pieces) + 1):
        for first in range(end - 1, -1, -1):
            own = words[end] - words[first]
            length = own + headings[end] - headings[first]
            if length > most and first < end - 1:
                break
            cost = (length / target - 1) ** 2 + (SHORT if own < least else 0) + (pieces[first].cut if first else 0)
            if best[first] + cost < best[end]:
                best[end], start[end] = best[first] + cost, first
    found: list[tuple[str, str]] = []
    end = len(pieces)
    while end:
        begins = start[end] == 0 or pieces[start[end]].section != pieces[start[end] - 1].section
        found.append(_passage(pieces[start[end] : end], sections, begins))
        end = start[end]
    return found[::-1]


def _passage(pieces: Sequence[_Piece], sections: Sequence[Section], begins: bool) -> tuple[str, str]:
    """`begins`: the first section does so in this passage, else in one before it."""
    paths = [sections[number].path for number in sorted({piece.section for piece in pieces})]
    title = paths[0][: len(commonprefix(paths))] if begins else paths[0]
    texts = []
    for number, own in groupby(pieces, key=lambda piece: piece.section):
        path = sections[number].path
        heading = COLON.join(path[len(commonprefix((title, path))) :])
        sign = "" if not heading else " " if heading.endswith(SENTENCE_SIGNS) else COLON
        texts.append(heading + sign + " ".join(piece.text for piece in own))
    return COLON.join(title), UNPARTED.sub("", " ".join(texts))


def _pieces(number: int, section: Section, shared: int, most: int) -> Iterator[_Piece]:
    """The lines of the sentences of its paragraphs. Those of more than `most` words are mostly no sentences, but code or a
    table, so that a cut between their lines is as good. What ends with a colon leads to the paragraph after it."""
    before = ""
    heading = words_in(COLON.join(section.path[shared:]))
    for paragraph in section.paragraphs:
        cut = WITHIN if before.endswith((":", "：")) else 0.0
        before = paragraph
        for sentence in SENTENCE_END.split(paragraph):
            between_lines = SENTENCE if words_in(sentence, most + 1) > most else WITHIN
            for line in sentence.splitlines():
                for part, words in _parts(line, most):
                    yield _Piece(number, part, words, heading, cut)
                    heading, cut = 0, WITHIN
                cut = between_lines if cut else cut
            cut = SENTENCE if cut else cut


def _parts(line: str, most: int) -> list[tuple[str, int]]:
    words = words_in(line)
    if words <= most:
        return [(" ".join(line.split()), words)] if words else []
    parts = parts_of(line, ceil(words / ceil(words / most)))
    return [(part, words_in(part)) for part in parts]
