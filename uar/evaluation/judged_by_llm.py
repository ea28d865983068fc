"""Estimates of an evaluation: of the scores of a run, and of how good answers are, from few judgements by people and many by
an LLM."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from uar.collections import Collection
from uar.errors import DataError, UserError
from uar.evaluation.estimates import Estimating, llm_grades, log_estimates
from uar.evaluation.score_files import Values
from uar.storage.files import read_json, write_json
from uar.storage.labelled_pairs import Labels, read_labels
from uar.storage.lines import read_lines
from uar.storage.runs import Run

log = logging.getLogger(__name__)
NAME = "estimates.json"
HEADER = ["query_id", "measure", "people", "llm"]


@dataclass(frozen=True)
class JudgedByLLM:
    """`labels`: an LLM's, of passages: a file or an annotate run folder. `answers`: a table, parted by tabs, with the header
    `HEADER`: what people, of some questions, and an LLM, of all, say of an answer. Either may be None; see `Estimating` for
    the others."""

    labels: str | None = None
    answers: str | None = None
    level: float = 0.95
    human_frac: float | None = None
    seed: int = 0
    unit: str = "question"

    def __post_init__(self) -> None:
        _ = self._estimating, self._labels, self._answers  # a fault in them is told before anything is encoded

    @cached_property
    def _estimating(self) -> Estimating:
        return Estimating(self.level, self.human_frac, self.seed, self.unit)

    @cached_property
    def _labels(self) -> Labels:
        found = read_labels(Path(self.labels)) if self.labels else {}
        if any(label.grade is None for of_query in found.values() for label in of_query.values()):
            raise DataError(Path(str(self.labels)), "scores or ranks alone; labels or grades are needed")
        return found

    @cached_property
    def _answers(self) -> tuple[Values, Values]:
        return read_answer_values(Path(self.answers)) if self.answers else ({}, {})

    def questions(self, collection: Collection) -> list[str]:
        """Those that the LLM judged, which are searched too."""
        return [q for q in collection.queries if q in self._labels]

    def estimate(self, folder: Path, collection: Collection, run: Run, measures: Sequence[str]) -> None:
        """Add the estimates of a run to `estimates.json`, by the collection's slug; UserError where none can be made."""
        if not self.labels:
            return
        llm = llm_grades(collection, self._labels)
        human = self._estimating.of_passages([q for q in llm if q in collection.qrels])
        if not human:
            raise UserError(
                f"estimate.labels={self.labels}: people judged none of its {len(llm)} questions of {collection.reference}; "
                "have some of them judged"
            )
        found = self._estimating.of_run(collection, run, measures, human, llm)
        self._keep(folder, collection.slug, found, human)
        log_estimates(f"{collection.slug}, {self._estimating.title(len(human), len(llm))}", found)

    def estimate_answers(self, folder: Path) -> None:
        """Add those of `answers`, under `answers`."""
        people, llm = self._answers
        if not people:
            return
        human = self._estimating.by_people(sorted({q for values in people.values() for q in values}))
        found = self._estimating.estimates({m: {q: v for q, v in of.items() if q in human} for m, of in people.items()}, llm)
        self._keep(folder, "answers", found, human)
        log_estimates("Answers, as if people had judged all of them", found)

    def _keep(self, folder: Path, name: str, found: dict[str, Any], human: Sequence[str]) -> None:
        path = folder / NAME
        known = read_json(path) if path.is_file() else {}
        write_json(path, {**known, name: {"level": self.level, "questions_by_people": list(human), "measures": found}})


def read_answer_values(path: Path) -> tuple[Values, Values]:
    """By measure and question: what people say, where they do, and what the LLM says; DataError names the line of a fault."""
    people: dict[str, dict[str, float]] = {}
    llm: dict[str, dict[str, float]] = {}
    if not path.is_file():
        raise UserError(f"estimate.answers={path}: no such file; give a table of {', '.join(HEADER)}")
    lines = ((number, line.split("\t")) for number, line in read_lines(path))
    first, header = next(lines, (1, []))
    if header != HEADER:
        raise DataError(path, f"the header is {header}; {', '.join(HEADER)}, parted by tabs, is needed", first)
    for line, row in lines:
        try:
            query_id, measure, by_people, by_llm = row
            predicted, judged = _number(by_llm), _number(by_people) if by_people else None
        except ValueError as error:
            raise DataError(path, f"{row} has no four fields, the last two numbers (people's may be empty)", line) from error
        if query_id in llm.get(measure, {}):
            raise DataError(path, f"{measure} of question {query_id!r} stands there twice; give it once", line)
        llm.setdefault(measure, {})[query_id] = predicted
        if judged is not None:
            people.setdefault(measure, {})[query_id] = judged
    if not llm:
        raise DataError(path, "the header alone; a row an answer is needed")
    if lacking := [m for m in llm if m not in people]:
        raise DataError(path, f"people say nothing of {', '.join(lacking)}; have them judge some answers")
    return people, llm


def _number(cell: str) -> float:
    """ValueError for what is none, or is not finite."""
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(cell)
    return value
