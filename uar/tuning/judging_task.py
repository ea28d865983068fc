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
from uar.llm.call import Asker
from uar.llm.pooled import question_of
from uar.llm.record import Reply
from uar.storage.labelled_pairs import FileLabel, Labels, read_labels
from uar.storage.ordering import rank_of
from uar.tuning.task import Case, Task, calls_of

log = logging.getLogger(__name__)
Known = Mapping[str, FileLabel]  # by passage id


@dataclass(frozen=True)
class JudgingTask(Task):
    """`annotator`: pointwise, whose right reply is the grade of the passage, or setwise, whose right reply is the letter of
    the one best passage of a window. `labels`: a file of labels or a run folder, such as that of a stronger model or an
    ensemble; None: people's judgements of the split. `negatives`: passages of the lowest grade a question at most, drawn by
    `seed`; None: all. `orders`: of each pool, which is cut into windows anew in each; further ones are drawn.

    Grades are learned as they are. Where no grade of all that are given, or of the annotator's scale, is above 1, labels are
    learned: 0 as the lowest grade of the scale, 1 as the highest. The best passage of a window has the highest grade, which is
    above 0; between equal grades the score decides, else the rank. In a file of scores or ranks alone these decide, in windows
    that it knows whole.

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
        if self.negatives is not None and self.negatives < 0:
            raise UserError(f"task.negatives={self.negatives}: a number from 0 on is needed, or null for all")
        for name in self.annotator.written():
            raise UserError(
                f"annotator.{name}s=write: a call that writes the {name} comes before those that judge; what asks one call "
                f"can be tuned; give annotator.{name}s=FILE, such as the {name}s.jsonl of an annotate run"
            )

    @property
    def idle(self) -> frozenset[str]:
        if isinstance(self.annotator, Setwise):
            return frozenset({"task.negatives", "annotator.k", "annotator.threshold"})
        return frozenset({"task.orders", "annotator.calibration_queries", "annotator.threshold"})

    @property
    def asker(self) -> Asker:
        """A window alone is judged where there would be a tournament of them."""
        return replace(self.annotator, k=1) if isinstance(self.annotator, Setwise) else self.annotator

    def cases(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> list[Case]:
        if self.labels:
            known = read_labels(Path(self.labels))
            grades = [said.grade for of in known.values() for said in of.values() if said.grade is not None]
        else:
            known, grades = self._people(collection, pools), [g for of in collection.qrels.values() for g in of.values()]
        asked = {q: pool for q, pool in pools.items() if q in known}
        if isinstance(self.annotator, Pointwise):
            found = self._graded(self.annotator, collection, asked, known, max(grades, default=0))
        else:
            found = self._picks(collection, asked, known, by_score=not grades)
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

    def _people(self, collection: Collection, pools: Mapping[str, Sequence[str]]) -> Labels:
        """What people say of the passages of pools."""
        found: Labels = {}
        for query_id, pool in pools.items():
            for doc_id in pool:
                said = collection.positive(query_id, doc_id)
                if said is not None:
                    grade = collection.qrels[query_id].get(doc_id, 0)
                    found.setdefault(query_id, {})[doc_id] = FileLabel(grade, int(said))
        return found

    def _graded(
        self,
        annotator: Pointwise,
        collection: Collection,
        pools: Mapping[str, Sequence[str]],
        known: Labels,
        highest: int,
    ) -> list[Case]:
        """Of each passage with a label. `highest`: of all grades that are given."""
        cases = []
        for query_id, pool in pools.items():
            grades = {d: self._grade(known[query_id][d], highest) for d in pool if d in known[query_id]}
            lowest = sorted((d for d in grades if not grades[d]), key=lambda d: rank_of(self.seed, "negatives", query_id, d))
            kept = {d for d in grades if grades[d]} | set(lowest[: self.negatives])
            replies = {d: annotator.reply_of(grade) for d, grade in grades.items() if d in kept}
            cases += [self._case(collection, query_id, [d], reply) for d, reply in replies.items()]
        return cases

    def _picks(self, collection: Collection, pools: Mapping[str, Sequence[str]], known: Labels, by_score: bool) -> list[Case]:
        """Of each window that has one best passage among several; how many have none is said."""
        windows = [(q, window) for q, pool in pools.items() for window in self._windows(q, pool)]
        cases = []
        for query_id, window in windows:
            best = _best(window, known[query_id], by_score)
            if best is not None:
                cases.append(self._case(collection, query_id, window, ascii_uppercase[window.index(best)]))
        if len(cases) < len(windows):
            line = "%s: %d of %d windows have no one best passage and are left out"
            log.info(line, collection.slug, len(windows) - len(cases), len(windows))
        return cases

    def _windows(self, query_id: str, pool: Sequence[str]) -> list[list[str]]:
        size = self.annotator.window if isinstance(self.annotator, Setwise) else len(pool)
        drawn = [sorted(pool, key=lambda d: rank_of(self.seed, f"order {n}", query_id, d)) for n in range(1, self.orders)]
        windows = [list(order[start : start + size]) for order in [pool, *drawn] for start in range(0, len(order), size)]
        return [window for window in windows if len(window) > 1]

    def _case(self, collection: Collection, query_id: str, doc_ids: Sequence[str], target: str) -> Case:
        question = question_of(collection, query_id, doc_ids)
        (call,) = calls_of(self.asker, question)
        return Case(question, call, target)

    def _grade(self, known: FileLabel, highest_given: int) -> int:
        """On the annotator's scale."""
        lowest, highest = self.annotator.grades or (0, 1)
        labels = min(highest, highest_given) <= 1
        said = known.label if labels and known.label is not None else known.grade
        if said is None:
            raise UserError(f"task.labels={self.labels}: scores alone, no label or grade; give labels with one of them")
        if not labels:
            return min(max(said, lowest), highest)
        if said > 1:
            raise UserError(
                f"task.labels={self.labels}: grade {said} without a label 0 or 1, which a scale of two grades learns; give "
                "labels, or annotator.scale= with as many grades"
            )
        return highest if said > 0 else lowest


def _best(window: Sequence[str], known: Known, by_score: bool) -> str | None:
    """The one best passage; None where there is none. `by_score`: there are no grades."""
    if by_score and not all(d in known for d in window):
        return None
    worth = {d: _worth(known[d]) for d in window if d in known and (by_score or (known[d].grade or 0) > 0)}
    best = max(worth.values(), default=None)
    first = [d for d, value in worth.items() if value == best]
    return first[0] if len(first) == 1 else None


def _worth(known: FileLabel) -> tuple[int, float]:
    """What orders the passages of a window."""
    return known.grade or 0, known.score if known.score is not None else -float(known.rank or 0)
