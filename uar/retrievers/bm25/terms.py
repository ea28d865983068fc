"""The terms that BM25 counts, by language.

English is bm25s' own: words of two letters and more, its stop words, the Snowball stemmer. In other languages a text is first
brought to one spelling (NFKC, no capitals). Where words are parted by spaces, they are stemmed where Snowball knows the
language, and bm25s' stop words are left out where it has some. Scripts without spaces, and Korean, whose particles are written
together with their words, are counted by pairs of neighbouring characters, as Lucene's CJK analyser does.

bm25s is imported where it is used: it brings numba, which is slow to import and of which vLLM's worker processes, importing
what the main program imports, have no need.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice

import numpy as np
import regex

from uar.collections.languages import STEMMERS, TERM, clusters, folded, is_unspaced

VERSION = 1  # of the terms of other languages than English; a new number indexes anew
BLOCK = 16_384  # texts whose words are stemmed at once
HANGUL = regex.compile(r"\p{Hangul}")
SHORTEST = 2  # letters of a word


def terms_of(texts: Sequence[str], language: str) -> list[list[str]]:
    """The terms of each text, as a query."""
    if language == "en":
        return _english(texts)
    split = _splitter(language)
    return [split(text) for text in texts]


def numbered(texts: Iterable[str], language: str, vocabulary: dict[str, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of a block of texts at a time, the numbers of their terms, one text after another, and how many each has. Terms that
    `vocabulary` lacks join it."""
    left = iter(texts)
    while block := list(islice(left, BLOCK)):
        terms = terms_of(block, language)
        lengths = np.fromiter(map(len, terms), np.int64, len(block))
        words = chain.from_iterable(terms)
        yield np.fromiter((vocabulary.setdefault(w, len(vocabulary)) for w in words), np.int32, int(lengths.sum())), lengths


def _english(texts: Sequence[str]) -> list[list[str]]:
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    terms: list[list[str]] = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)
    return terms


def _splitter(language: str) -> Callable[[str], list[str]]:
    stem, left_out = _stemmer(language), stop_words(language)

    def split(text: str) -> list[str]:
        found: list[str] = []
        for term in TERM.findall(folded(text)):
            if is_unspaced(term) or HANGUL.search(term):
                found += _pairs(term)
            elif len(term) >= SHORTEST and term not in left_out:
                found.append(stem(term))
        return found

    return split


def _pairs(term: str) -> list[str]:
    """Neighbouring characters of a term; one that stands alone is a term of its own."""
    parts = clusters(term)
    return [a + b for a, b in zip(parts, parts[1:], strict=False)] or parts


def _stemmer(language: str) -> Callable[[str], str]:
    import Stemmer

    return cache(Stemmer.Stemmer(STEMMERS[language]).stemWord) if language in STEMMERS else str


def stop_words(language: str) -> frozenset[str]:
    """bm25s' of a language other than English."""
    from bm25s import stopwords

    words = getattr(stopwords, f"STOPWORDS_{STEMMERS.get(language, '').upper()}", ())
    return frozenset(folded(word) for word in words)
