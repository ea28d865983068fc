"""What an annotator is: an asker whose chain returns judgements of the pool that a question is shown with."""

import sys
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from uar.annotation import parsing
from uar.annotation.judgement import Judged, Judgement
from uar.annotation.own_judgements import OwnJudgements
from uar.collections import Collection, answer_match
from uar.llm import record, refusals, replies, thinking
from uar.llm.call import Asker, Chain, Question
from uar.llm.prompts.template import content_hash
from uar.storage.files import digest

FILES = ("template", "scale")  # options that name prompt files end so
ROOM = "uar.annotation."
READERS = (answer_match, parsing, record, refusals, replies, thinking)


@dataclass(frozen=True)
class Annotator(Asker):
    """`judgements` is a chain that returns judgements of the pool, without the passages whose own call failed, or None where
    nothing can be said of the question, so that a failure never becomes a label.

    `reading`: options that change what is made of the replies, and nothing that is asked.
    """

    reading: ClassVar[frozenset[str]] = frozenset({"rule", "threshold", "floor", "metric"})
    needs_gold_answers = False  # whether a question without gold answers cannot be annotated
    models = 1  # how many models it asks
    notes_doubt = False  # whether its judgements say how sure it is
    can_sample = False  # whether asking it again at a temperature may give another judgement

    @abstractmethod
    def judgements(self, question: Question) -> Chain:
        """The calls of one question, and what is made of their replies."""

    def chain(self, question: Question) -> Chain:
        """Judgements in which passages of equal text share what the best ranked of them got."""
        judged = yield from self.judgements(question)
        return None if judged is None else _alike(question, judged)

    @property
    def stage_grades(self) -> dict[str, int]:
        """The grade from which each selecting stage took a passage; empty where one stage gives the labels."""
        return {}

    @property
    def grades(self) -> tuple[int, int] | None:
        """The lowest and the highest grade that it gives, where it has a scale of its own."""
        return None

    @property
    def shows_labels_of(self) -> Collection | None:
        """The split whose human labels its prompts show, which nothing may be measured on."""
        return None

    @property
    def passage_wise(self) -> bool:
        """Whether each passage is judged by calls that show no other, so that pools of a question add up."""
        return False

    @property
    def words_shown(self) -> int | None:
        """Of a passage, at most; the fewest of several annotators. None where it shows none."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        members = [value.words_shown for value in own.values() if isinstance(value, Annotator)]
        return min((words for words in (own.get("max_words"), *members) if words is not None), default=None)

    def asks(self) -> dict[str, Any]:
        """What the calls depend on besides models and pools: the class, its options but for those of `reading`, and the
        content of the prompt files that they name."""
        settings: dict[str, Any] = {"annotator": type(self).__name__}
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in self.reading:
                continue
            if isinstance(value, Annotator):
                value = value.asks()
            elif option.name.endswith(FILES) and isinstance(value, str):
                value = content_hash(value, "scales" if option.name.endswith("scale") else "prompts")
            elif option.name == "templates" and value:
                value = [content_hash(name) for name in value]
            elif value == option.default:  # so that an option of later times changes nothing for annotations of before
                continue
            settings[option.name] = value
        return settings

    def reads(self) -> str:
        """Hash of all options and of the code that reads replies: what was concluded under another one is concluded anew."""
        options = {f.name: v.reads() if isinstance(v := getattr(self, f.name), Annotator) else v for f in fields(self)}
        return digest(self.asks(), options, _code(type(self)))

    def notes(self, sizes: Iterable[int]) -> str | None:
        """What users should know of its options, given the sizes of the pools."""
        return None

    def at_most(self) -> "Annotator":
        """One that asks all that this one may ask, for dry runs, where what it asks hangs on what is replied."""
        return self

    def lacks(self, query_ids: Iterable[str]) -> str | None:
        """What users should know of what is missing for some of the queries."""
        return None

    def written(self) -> Mapping[str, Asker]:
        """Askers whose calls are part of its own, by the name of the text that they give for a question: what an annotate run
        writes as `NAMEs.jsonl` for people to read."""
        return {}

    def own(self, collection: Collection) -> OwnJudgements | None:
        """What it says of a collection without being asked, of passages of its own; None where it asks about candidates."""
        return None

    def orders(self, query_id: str, pool: Sequence[str]) -> list[list[str]]:
        """The orders in which a pool is shown: one, or one a member of an ensemble."""
        return [list(pool)]

    def asked_besides(self, collection: Collection, seed: int) -> list[str]:
        """Queries that every run asks, whatever its limit and shard, since `finish` needs their judgements."""
        return []

    def finish(self, collection: Collection, judged: Judged, seed: int) -> tuple[Judged, dict[str, Any] | None]:
        """What all judgements together allow, such as calibration: the final judgements, and a report of it."""
        return judged, None


def _alike(question: Question, judged: Sequence[Judgement]) -> list[Judgement]:
    if len(set(question.passages.values())) == len(question.passages):
        return list(judged)
    first: dict[str, Judgement] = {}
    for judgement in sorted(judged, key=lambda j: j.rank):
        first.setdefault(question.passages[judgement.doc_id], judgement)
    best = {j.doc_id: first[question.passages[j.doc_id]] for j in judged}
    shared = ((j, best[j.doc_id]) for j in judged)
    return [j if own is j else replace(own, doc_id=j.doc_id, rank=j.rank) for j, own in shared]


@cache
def _code(kind: type) -> str:
    return digest([Path(file).read_text(encoding="utf-8") for file in sorted(code_files(kind))])


def code_files(kind: type) -> set[str]:
    """The files that say what an annotator of this kind makes of replies: its own, those of the room that they use in turn,
    and what reads replies below."""
    coming = {module.__name__ for module in READERS} | {base.__module__ for base in kind.__mro__}
    known: set[str] = set()
    while coming:
        known |= coming
        used = {getattr(value, "__module__", None) for name in coming for value in vars(sys.modules[name]).values()}
        coming = {name for name in used - known if isinstance(name, str) and name.startswith(ROOM)}
    return {file for name in known if (file := getattr(sys.modules[name], "__file__", None))}


def ranked_judgements(
    order: Sequence[str], grades: Mapping[str, int], scores: Mapping[str, float], positive: int
) -> list[Judgement]:
    """Judgements in rank order; label 1 from grade `positive` up."""
    return [Judgement(d, int(grades[d] >= positive), grades[d], scores.get(d), rank) for rank, d in enumerate(order, start=1)]
