"""Answers that cite passages by their numbers, as in `It ends in the sea [1][3].`"""

import re

from uar.collections.chunks import SENTENCE_END

CITED = re.compile(r"\s*[\[【［](\s*\d{1,3}(?:\s*(?:[-–,;、，；&]|and)\s*\d{1,3})*\s*)[\]】］]")
BEHIND = re.compile(rf"([.!?…。！？][\"'”’»)]*)((?:{CITED.pattern})+)")
UNKNOWN = 0  # a number that no passage has
RANGE = re.compile(r"(\d+)\s*[-–]\s*(\d+)|(\d+)")


def without_citations(text: str) -> str:
    return CITED.sub("", text).strip()


def cited_sentences(text: str, passages: int) -> list[tuple[str, list[int]]]:
    """The sentences of a text without their citations, and the numbers that each cites, once each. Citations that stand behind
    the full stop belong to the sentence before it. `[2, 3]`, `[2 and 3]`, `[1-3]` and `【2】` are read too. A range that runs
    backwards or past the `passages` that there are is one number, `UNKNOWN`."""
    before = BEHIND.sub(lambda found: found[2] + found[1], " ".join(text.split()))
    found = [(without_citations(sentence), _numbers(sentence, passages)) for sentence in SENTENCE_END.split(before)]
    return [(sentence, numbers) for sentence, numbers in found if re.search(r"\w", sentence)]


def _numbers(sentence: str, passages: int) -> list[int]:
    found: list[int] = []
    for first, last, one in (match for cited in CITED.finditer(sentence) for match in RANGE.findall(cited[1])):
        if one:
            found.append(int(one))
        else:
            found += range(int(first), int(last) + 1) if int(first) <= int(last) <= passages else [UNKNOWN]
    return list(dict.fromkeys(found))
