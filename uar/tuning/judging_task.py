"""Judgements of passages, as an annotator has them that asks one call a passage or a pool: the student of people, of a
stronger model or of an ensemble."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from uar.annotation.annotators import Annotator, Judgement, Pointwise, Setwise
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.call import Asker, Question
from uar.llm.pooled import question_of
from uar.llm.record import Reply
from uar.storage.labelled_pairs import FileLabel, read_labels
from uar.storage.ordering import rank_of
from uar.tuning.task import Case, Task, calls_of

log = logging.getLogger(__name__)
Known = Mapping[str, FileLabel]  # by passage id


@dataclass(frozen=True)
class JudgingTask(Task):
    """`annotator`: pointwise, whose right reply is the grade of the passage, or setwise, whose right reply is the letter of
    the one passage with the best label in a window. `labels`: a file of labels or a run folder, such as that of a stronger
    model or an ensemble; None: people's judgements of the split. Labels 0 and 1 are the lowest and the highest grade; grades
    are taken as they are, but on a scale of two, where labels count. `negatives`: passages of the lowest grade a question at
    most, drawn by `seed`; None: all. `orders`: of each pool, which is cut into windows anew in each; further ones are drawn.

    What is made of a reply is the grade, or the id of the passage that was picked.
    """

    annotator: Annotator
    depth: int = 8
    shuffle: bool = True
    labels: str | None = None
    negatives: int | None = None
    orders: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.annotator, Pointwise | Setwise):
            kind = type(self.annotator).__name__
            raise UserError(f"task.annotator: {kind} asks several calls or writes no judgement; allowed: pointwise, setwise")
        if self.orders < 1:
            raise UserError(f"task.orders={self.orders}: at least 1 is needed")

    @property
    def asker(self) -> Asker:
        """A window alone is judged where there would be a tournament of them."""
        return replace(self.annotator, k=1) if isinstance(self.annotator, Setwise) else self.annotator

    def cases(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> list[Case]:
        known = read_labels(Path(self.labels)) if self.labels else self._people(collection, pools)
        found = [case for q, pool in pools.items() if q in known for case in self._of(collection, q, pool, known[q])]
        if not found:
            raise UserError(
                f"task: {self.labels or collection.reference} says nothing of the passages that are shown; give labels of "
                "this collection and of these pools (task.labels=, candidates=)"
            )
        without = len(pools) - len({case.question.id for case in found})
        if without:
            log.info("%s: %d of %d questions have no label to learn and are left out", collection.slug, without, len(pools))
        return found

    def value(self, case: Case, reply: Reply, written: bool = True) -> Any:
        judged: Sequence[Judgement] | None = super().value(case, reply, written)
        if not judged:
            return None
        first = judged[0]
        return first.doc_id if isinstance(self.annotator, Setwise) else first.grade

    def right(self, case: Case) -> Any:
        """What `value` is where the reply is right."""
        if isinstance(self.annotator, Pointwise):
            return self.annotator.grade_of(str(case.target))
        return list(case.question.passages)[ascii_uppercase.index(str(case.target))]

    def _people(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> dict[str, dict[str, FileLabel]]:
        """What people say of the passages of pools: labels 0 and 1 where no grade is above 1, theirs or the annotator's."""
        highest = max((g for grades in collection.qrels.values() for g in grades.values()), default=0)
        binary = min(highest, (self.annotator.grades or (0, highest))[1]) <= 1
        found: dict[str, dict[str, FileLabel]] = {}
        for query_id, pool in pools.items():
            for doc_id in pool:
                said = collection.positive(query_id, doc_id)
                if said is not None:
                    grade = int(said) if binary else collection.qrels[query_id].get(doc_id, 0)
                    found.setdefault(query_id, {})[doc_id] = FileLabel(grade, int(said) if binary else None)
        return found

    def _of(self, collection: Collection, query_id: str, pool: Sequence[str], known: Known) -> list[Case]:
        if not isinstance(self.annotator, Pointwise):
            return self._picks(collection, query_id, pool, known)
        labelled, reply_of = [d for d in pool if d in known], self.annotator.reply_of
        grades = {d: self._grade(known[d]) for d in labelled}
        lowest = sorted((d for d in labelled if not grades[d]), key=lambda d: rank_of(self.seed, "negatives", query_id, d))
        kept = {d for d in labelled if grades[d]} | set(lowest[: self.negatives])
        return [self._case(question_of(collection, query_id, [d]), reply_of(grades[d])) for d in labelled if d in kept]

    def _picks(self, collection: Collection, query_id: str, pool: Sequence[str], known: Known) -> list[Case]:
        """Of each window that has one best passage among several."""
        size = self.annotator.window if isinstance(self.annotator, Setwise) else len(pool)
        drawn = [sorted(pool, key=lambda d: rank_of(self.seed, f"order {n}", query_id, d)) for n in range(1, self.orders)]
        cases = []
        for order in [pool, *drawn]:
            for start in range(0, len(order), size):
                window = list(order[start : start + size])
                worth = [_worth(known[d]) if d in known else (0, 0.0) for d in window]
                best = max(worth)
                if len(window) > 1 and worth.count(best) == 1 and best > (0, 0.0):
                    cases.append(self._case(question_of(collection, query_id, window), ascii_uppercase[worth.index(best)]))
        return cases

    def _case(self, question: Question, target: str) -> Case:
        (call,) = calls_of(self.asker, question)
        return Case(question, call, target)

    def _grade(self, known: FileLabel) -> int:
        """On the annotator's scale."""
        lowest, highest = self.annotator.grades or (0, 1)
        grade = known.grade if known.grade is not None else known.label
        if grade is None:
            raise UserError(f"task.labels={self.labels}: scores alone, no label or grade; give labels with one of them")
        if known.label is not None and (known.grade in (None, 0, 1) or highest == 1):
            return highest if known.label else lowest
        if grade > highest == 1:
            raise UserError(
                f"task.labels={self.labels}: grade {grade} without a label 0 or 1, which a scale of two grades learns; give "
                "labels, or annotator.scale= with as many grades"
            )
        return min(max(grade, lowest), highest)


def _worth(known: FileLabel) -> tuple[int, float]:
    """What orders the passages of a window."""
    grade = known.grade if known.grade is not None else known.label
    return grade or 0, known.score if known.score is not None else -float(known.rank or 0)
