"""How an answer agrees with gold ones: EM and F1 as SQuAD v1.1 computes them, ROUGE-L as rouge-score does."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """SQuAD v1.1: lower case, no punctuation, no articles, single spaces."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", kept).split())


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 where the normalised answer equals one of the gold answers."""
    return float(any(normalise(answer) == normalise(g) for g in gold))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Best word-overlap F1 over the gold answers."""
    return max((_f1(normalise(answer).split(), normalise(g).split()) for g in gold), default=0.0)


def rouge_l(answer: str, gold: Sequence[str]) -> float:
    """Best ROUGE-L F-measure over the gold answers, with stems."""
    return max((float(_rouge().score(g, answer)["rougeL"].fmeasure) for g in gold), default=0.0)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def _f1(answer: list[str], gold: list[str]) -> float:
    shared = sum((Counter(answer) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(answer), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
