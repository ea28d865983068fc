"""How an answer agrees with gold ones: EM and F1 as SQuAD v1.1 computes them, ROUGE-L as rouge-score does.

Both are made for English in ASCII, whose numbers they keep to the bit. A text beyond that is counted by Unicode words, with
the same rules: one spelling of what Unicode spells in several ways (NFKC), no capitals, no punctuation whatever its script, a
word for each character of scripts without spaces.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from uar.collections.languages import TERM, clusters, folded, is_unspaced

NAME = "normaliser of SQuAD v1.1, beyond ASCII by Unicode words (version 1)"
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """SQuAD v1.1: lower case, no punctuation, no articles, single spaces."""
    if not text.isascii():
        text = " ".join(_apart(folded(_plain(text))))
    kept = _plain(text.lower())
    return " ".join(ARTICLES.sub(" ", kept).split())


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 where the normalised answer equals one of the gold answers. An answer of nothing is never right; SQuAD's script has it
    right where a gold answer is an article or a sign, such as `A` of a choice."""
    return float(bool(answer.strip()) and any(normalise(answer) == normalise(g) for g in gold))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Best word-overlap F1 over the gold answers."""
    return max((_f1(normalise(answer).split(), normalise(g).split()) for g in gold), default=0.0)


def hold_answer(texts: Sequence[str], gold: Sequence[str]) -> list[bool]:
    """Of each text, whether one of the gold answers stands in it word by word, both normalised."""
    answers = [f" {found} " for g in gold if (found := normalise(g))]
    return [any(answer in words for answer in answers) for words in (f" {normalise(text)} " for text in texts)]


def rouge_l(answer: str, gold: Sequence[str]) -> float:
    """Best ROUGE-L F-measure over the gold answers, with stems."""
    return max((float(_rouge().score(g, answer)["rougeL"].fmeasure) for g in gold), default=0.0)


class _Words:
    """The words of a text for rouge-score: its own of ASCII, else Unicode's, with the same stems of English words."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._own = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return list(self._own.tokenize(text))
        words = [
            word for term in TERM.findall(folded(_seen(text))) for word in (clusters(term) if is_unspaced(term) else [term])
        ]
        return [stem for word in words for stem in (self._own.tokenize(word) if word.isascii() else [word])]


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


def _plain(text: str) -> str:
    """Without punctuation, the accents that stand for it, and characters that are not seen."""
    if text.isascii():
        return "".join(c for c in text if c not in string.punctuation)
    return "".join(c for c in text if c not in string.punctuation and not _is_passed_over(unicodedata.category(c)))


def _seen(text: str) -> str:
    """Without characters that are not seen, such as soft hyphens."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def _is_passed_over(category: str) -> bool:
    return category in {"Sk", "Cf"} or category.startswith("P")


def _apart(text: str) -> list[str]:
    """What spaces part, and single characters of scripts that have none."""
    found: list[str] = []
    for word in text.split():
        end = 0
        for term in TERM.finditer(word):
            if is_unspaced(term.group()):
                found += [word[end : term.start()], *clusters(term.group())]
                end = term.end()
        found.append(word[end:])
    return [word for word in found if word]


def _f1(answer: list[str], gold: list[str]) -> float:
    shared = sum((Counter(answer) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(answer), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
