"""Text cut into passages of like length, where it is best cut: between paragraphs, else between sentences."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import ceil
from typing import NamedTuple

import regex

from uar.collections.languages import UNSPACED, parts_of, words_in

SENTENCE_END = regex.compile(
    r"(?<=[.!?…][)\]\"'»”’]*)\s+(?=[\p{Lu}\p{Lo}\p{N}\"'“«(\[])"  # of scripts with spaces
    r"|(?<=[。！？][」』）]*)(?![」』）])"
    r"|\n(?=\s*(?:[-*•+]|\d+[.)])\s)"  # an item of a list
)
UNPARTED = regex.compile(rf"(?<=[{UNSPACED}。！？、，」』）]) (?=[{UNSPACED}「『（])")
SENTENCE, WITHIN, SHORT = 0.5, 2.0, 10.0  # costs of a cut between sentences, within one, and of a passage that is too short


class _Piece(NamedTuple):
    """`cut`: the cost of a cut before it."""

    text: str
    words: int
    cut: float


def chunks(paragraphs: Sequence[str], most: int, least: int) -> list[str]:
    """Passages of at most `most` words. They are as few as that allows and of like length, and none is shorter than `least`
    where it can be helped. A sentence is cut only where it is longer than a passage."""
    pieces = [piece for paragraph in paragraphs for piece in _pieces(paragraph, most)]
    if not pieces:
        return []
    before = [0, *accumulate(piece.words for piece in pieces)]
    target = before[-1] / ceil(before[-1] / most)
    best = [0.0] + [float("inf")] * len(pieces)
    start = [0] * (len(pieces) + 1)
    for end in range(1, len(pieces) + 1):
        for first in range(end - 1, -1, -1):
            words = before[end] - before[first]
            if words > most:
                break
            cost = (words / target - 1) ** 2 + (SHORT if words < least else 0) + (pieces[first].cut if first else 0)
            if best[first] + cost < best[end]:
                best[end], start[end] = best[first] + cost, first
    found: list[str] = []
    end = len(pieces)
    while end:
        text = " ".join(piece.text for piece in pieces[start[end] : end])
        found.append(UNPARTED.sub("", text))
        end = start[end]
    return found[::-1]


def _pieces(paragraph: str, most: int) -> Iterator[_Piece]:
    """The sentences of a paragraph; a longer one by lines, and a longer line in equal parts."""
    cut = 0.0
    for sentence in SENTENCE_END.split(paragraph):
        for line in [sentence] if words_in(sentence, most + 1) <= most else sentence.splitlines():
            for part, words in _parts(line, most):
                yield _Piece(part, words, cut)
                cut = WITHIN
            cut = SENTENCE if cut else cut


def _parts(line: str, most: int) -> list[tuple[str, int]]:
    words = words_in(line)
    if words <= most:
        return [(" ".join(line.split()), words)] if words else []
    parts = parts_of(line, ceil(words / ceil(words / most)))
    return [(part, words_in(part)) for part in parts]
