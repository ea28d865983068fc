"""Sparse representations: how much a model wants to write next each token of the words of a text."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import regex
import torch
from scipy.sparse import csr_matrix

from uar.collections.languages import TERM, folded
from uar.retrievers.bm25.terms import stop_words

WITHOUT_WORDS = 10  # best tokens of a text that has no words
PER_UNIT = 100  # of a weight, which is a whole number
LETTERS = regex.compile(r"[▁Ġ ]?(?:[a-z]\p{L}*)")
KNOWN = 200_000  # words whose tokens are remembered


class OwnWords:
    """`most`: tokens of a text, those of the greatest weight; `expansion`: so many best tokens of letters beside them that are
    none of the text's."""

    def __init__(self, tokenizer: Any, language: str, most: int, expansion: int) -> None:
        self._most, self._expansion = most, expansion
        self._left_out = _stop_words(language)
        self._tokens = lru_cache(KNOWN)(lambda word: tuple(tokenizer(word, add_special_tokens=False)["input_ids"]))
        vocabulary = tokenizer.get_vocab().items() if expansion else ()
        self._letters = np.array(sorted(number for token, number in vocabulary if LETTERS.fullmatch(token)), np.int64)

    def tokens(self, text: str) -> np.ndarray:
        """Ids of the tokens of the words of a text, in lower case and without stop words; each once, in order."""
        words = {word for word in TERM.findall(folded(text)) if word not in self._left_out}
        return np.array(sorted({token for word in words for token in self._tokens(word)}), np.int64)

    def weigh(self, texts: Sequence[str], logits: torch.Tensor) -> csr_matrix:
        """(texts, vocabulary) of round(100 · log(1 + max(0, logit))), uint16; logits: (texts, vocabulary)."""
        weights = torch.log1p(torch.relu(logits)).cpu().numpy()
        rows = [self._row(text, own) for text, own in zip(texts, weights, strict=True)]
        ends = np.cumsum([0, *(len(tokens) for tokens, _ in rows)])
        tokens, values = (np.concatenate([np.zeros(0, np.int64), *part]) for part in zip(*rows, strict=True))
        return csr_matrix((values.astype(np.uint16), tokens.astype(np.int32), ends), shape=weights.shape)

    def _row(self, text: str, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = self.tokens(text)
        chosen = _best(own, weights, self._most) if len(own) else _best(np.arange(len(weights)), weights, WITHOUT_WORDS)
        if self._expansion:
            chosen = np.union1d(chosen, _best(np.setdiff1d(self._letters, own), weights, self._expansion))
        values = np.rint(weights[chosen] * PER_UNIT)
        return chosen[values > 0], values[values > 0]


def _best(tokens: np.ndarray, weights: np.ndarray, most: int) -> np.ndarray:
    """The tokens of the greatest weights, at most so many, in order; of equal ones the first."""
    return np.sort(tokens[np.argsort(-weights[tokens], kind="stable")[:most]])


def _stop_words(language: str) -> frozenset[str]:
    from bm25s import stopwords

    return frozenset(stopwords.STOPWORDS_EN_PLUS) if language == "en" else stop_words(language)
