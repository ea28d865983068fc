"""Which of many sets of words are nearly equal."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import ceil

ROUNDING = 1e-9  # of a share times a number of words


class NearCopies:
    """Finds the sets that are similar to one of many by their Jaccard similarity, with an inverted index of prefixes: of two
    sets of words in one order, the rarest first, whose similarity reaches t, the first |set| - ⌈t |set|⌉ + 1 words have one in
    common (prefix filtering, doi 10.1145/1242572.1242591)."""

    def __init__(self, similarity: float) -> None:
        self._least = similarity
        self._sets: list[frozenset[str]] = []
        self._index: dict[str, list[int]] = defaultdict(list)

    def ordered(self, sets: Iterable[Iterable[str]]) -> list[list[str]]:
        """The words of all sets that will be asked about, each once, in the order that the index needs."""
        distinct = [set(words) for words in sets]
        often = Counter(word for words in distinct for word in words)
        return [sorted(words, key=lambda w: (often[w], w)) for words in distinct]

    def add(self, words: list[str]) -> None:
        """Remember a set, in order; its number is that of the sets before it."""
        for word in self._prefix(words):
            self._index[word].append(len(self._sets))
        self._sets.append(frozenset(words))

    def like(self, words: list[str]) -> int | None:
        """The number of the first set that is similar to this one; None where there is none."""
        own = frozenset(words)
        others = {at for word in self._prefix(words) for at in self._index[word]}
        return min((at for at in others if self._similar(own, self._sets[at])), default=None)

    def _similar(self, own: frozenset[str], other: frozenset[str]) -> bool:
        return len(own & other) >= self._least * len(own | other) - ROUNDING

    def _prefix(self, words: list[str]) -> list[str]:
        return words[: len(words) - ceil(self._least * len(words) - ROUNDING) + 1]
