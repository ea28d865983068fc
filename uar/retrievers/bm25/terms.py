"""The terms that BM25 counts, by language.

English is bm25s' own: words of two letters and more, its stop words, the Snowball stemmer. In other languages a text is first
brought to one spelling (NFKC, no capitals). Where words are parted by spaces, they are stemmed where Snowball knows the
language, and bm25s' stop words are left out where it has some. Scripts without spaces, and Korean, whose particles are written
together with their words, are counted by pairs of neighbouring characters, as Lucene's CJK analyser does.

bm25s is imported where it is used: it brings numba, which is slow to import and of which vLLM's worker processes, importing
what the main program imports, have no need.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import regex

from uar.collections.languages import STEMMERS, TERM, clusters, folded, is_unspaced
from uar.storage.segments import ends_of

VERSION = 1  # of the terms of other languages than English; a new number indexes anew
BLOCK = 16_384  # texts whose terms are numbered at once
REMEMBERED = 1 << 20  # words whose terms are
ENGLISH = re.compile(r"(?u)\b\w\w+\b")
HANGUL = regex.compile(r"\p{Hangul}")
SHORTEST = 2  # letters of a word


def terms_of(texts: Sequence[str], language: str) -> list[list[str]]:
    """The terms of each text, as a query."""
    words, term = _words(language), _term(language)
    return [[found for word in words(text) if (found := term(word)) is not None] for text in texts]


def numbered(texts: Iterable[str], language: str, vocabulary: dict[str, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of a block of texts at a time, the numbers of their terms, one text after another, and how many each has. Terms that
    `vocabulary` lacks join it."""
    words, known = _words(language), _Numbers(_term(language), vocabulary)
    left = iter(texts)
    while block := list(islice(left, BLOCK)):
        every = [words(text) for text in block]
        ends = ends_of([len(own) for own in every])
        numbers = np.fromiter(map(known.__getitem__, chain.from_iterable(every)), np.int32, int(ends[-1]))
        yield numbers[numbers >= 0], np.diff(ends_of(numbers >= 0)[ends])
        if len(known) > REMEMBERED:
            known.clear()


class _Numbers(dict[str, int]):
    """Of words, the number of their term; -1 where it is left out."""

    def __init__(self, term: Callable[[str], str | None], vocabulary: dict[str, int]) -> None:
        super().__init__()
        self._term, self._vocabulary = term, vocabulary

    def __missing__(self, word: str) -> int:
        term = self._term(word)
        self[word] = -1 if term is None else self._vocabulary.setdefault(term, len(self._vocabulary))
        return self[word]


def _words(language: str) -> Callable[[str], list[str]]:
    """The words of a text, or the pairs of characters that are counted in their place."""
    if language == "en":
        return lambda text: ENGLISH.findall(text.lower())

    def split(text: str) -> list[str]:
        found: list[str] = []
        for term in TERM.findall(folded(text)):
            if is_unspaced(term) or HANGUL.search(term):
                found += _pairs(term)
            elif len(term) >= SHORTEST:
                found.append(term)
        return found

    return split


def _pairs(term: str) -> list[str]:
    """Neighbouring characters of a term; one that stands alone is a term of its own."""
    parts = clusters(term)
    return [a + b for a, b in zip(parts, parts[1:], strict=False)] or parts


def _term(language: str) -> Callable[[str], str | None]:
    """The term of a word; None for one that is left out."""
    import Stemmer

    left_out = stop_words(language)
    stem = Stemmer.Stemmer(STEMMERS[language]).stemWord if language in STEMMERS else str
    return lambda word: None if word in left_out else stem(word)


def stop_words(language: str) -> frozenset[str]:
    """bm25s' own."""
    from bm25s import stopwords

    name = "EN" if language == "en" else STEMMERS.get(language, "").upper()
    return frozenset(map(folded, getattr(stopwords, f"STOPWORDS_{name}", ())))
