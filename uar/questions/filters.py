"""Which of the questions that were written are kept, and why the others are not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from uar.collections import Collection, Query
from uar.collections.answer_match import hold_answer, normalise
from uar.collections.languages import words_in
from uar.pools import PoolSource
from uar.retrievers.bm25.terms import terms_of
from uar.storage.near_copies import NearCopies


class Written(NamedTuple):
    """A question, the passage that it was written from, its answer, and a text that looks right beside it and is false; the
    last two may be empty."""

    id: str
    text: str
    source: str
    answer: str = ""
    against: str = ""


class Dropped(NamedTuple):
    question: Written
    why: str


Sifted = tuple[list[Written], list[Dropped]]  # what is kept, and what is not


@dataclass(frozen=True)
class Wording:
    """What a question must look like. `unwanted`: a regular expression of what must not be found in it."""

    min_words: int
    max_words: int
    unwanted: re.Pattern[str]

    def fault(self, question: str, passage: str) -> str | None:
        """What is wrong with a question; None where nothing is."""
        words = words_in(question)
        if not self.min_words <= words <= self.max_words:
            return "too short" if words < self.min_words else "too long"
        if self.unwanted.search(question):
            return "unwanted words"
        return "copied" if normalise(question) in normalise(passage) else None


def kept_by_wording(questions: Sequence[Written], wording: Wording, passages: dict[str, str]) -> Sifted:
    """`passages`: texts of the sources."""
    faults = [(q, wording.fault(q.text, passages[q.source])) for q in questions]
    return [q for q, why in faults if why is None], [Dropped(q, why) for q, why in faults if why is not None]


def with_answers_of_passages(questions: Sequence[Written], passages: Mapping[str, str]) -> list[Written]:
    """The questions without the answers that do not stand in their passage, word by word."""
    return [q if any(hold_answer([passages[q.source]], [q.answer])) else q._replace(answer="") for q in questions]


def without_copies_of_passages(
    questions: Sequence[Written], passages: Mapping[str, str], similarity: float, language: str
) -> list[Written]:
    """The questions without the hard negatives that are no negatives: their stems are those of the passage, with a Jaccard
    similarity from `similarity` up."""
    texts = [text for q in questions for text in (q.against, passages[q.source])]
    stems = [set(terms) for terms in terms_of(texts, language)] if texts else []
    pairs = zip(stems[::2], stems[1::2], strict=True)
    alike = [len(own & other) >= similarity * max(1, len(own | other)) for own, other in pairs]
    return [q._replace(against="") if same else q for q, same in zip(questions, alike, strict=True)]


def kept_by_round_trip(questions: Sequence[Written], corpus: Collection, retriever: PoolSource) -> Sifted:
    """Those whose source is among the `depth` passages that the retriever finds for them in the whole corpus."""
    asked = replace(corpus, queries={q.id: Query(q.id, q.text) for q in questions}, qrels={}, candidates={})
    found = retriever.best(asked, list(asked.queries)) if questions else {}
    lost = [Dropped(q, "passage not found again") for q in questions if q.source not in found[q.id]]
    return [q for q in questions if q.source in found[q.id]], lost


def kept_once(questions: Sequence[Written], similarity: float, language: str) -> Sifted:
    """The first of questions with the same normalised text, or with a Jaccard similarity of their stems (stop words left
    out) from `similarity` up."""
    kept: list[Written] = []
    dropped: list[Dropped] = []
    texts: set[str] = set()
    near = NearCopies(similarity)
    stems_of = near.ordered(terms_of([q.text for q in questions], language)) if questions else []
    for question, stems in zip(questions, stems_of, strict=True):
        text = normalise(question.text)
        if text in texts:
            dropped.append(Dropped(question, "duplicate"))
        elif near.like(stems) is not None:
            dropped.append(Dropped(question, "near duplicate"))
        else:
            texts.add(text)
            near.add(stems)
            kept.append(question)
    return kept, dropped
