"""Measures that an LLM judges, over the answers of a collection: values, how many failed, and what they were made of."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uar.collections import Collection
from uar.errors import UserError
from uar.evaluation.rag.judge_agreement import agreement
from uar.evaluation.rag.judges.judge import AnsweredQuestion, Judge, Judged
from uar.evaluation.rag.rag_settings import CLOSED_BOOK
from uar.evaluation.rag.reader import Asking
from uar.evaluation.score_files import Scores, Values
from uar.launch.small_table import log_table
from uar.llm.failing import write_failures
from uar.llm.record import Record
from uar.storage.files import write_jsonl

log = logging.getLogger(__name__)


@dataclass
class Judging:
    """`judges` by name; `measures`: those that are wanted of what they give. A judge is asked no further once too many of
    its calls surely fail, see `Asking`, and its measures have no value then."""

    judges: Mapping[str, Judge]
    measures: Sequence[str]
    definitions: dict[str, str] = field(default_factory=dict)
    _values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # line -> measure -> query id -> value
    _counts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # line -> measure
    _details: list[dict[str, Any]] = field(default_factory=list)
    _failures: list[Record] = field(default_factory=list)

    def judge(self, ask: Asking, line: str, answered: Mapping[str, AnsweredQuestion | None]) -> None:
        """Judge the answers of a line; None for questions whose answer failed, which have no value."""
        questions = [question for question in answered.values() if question is not None]
        values, counts = self._values.setdefault(line, {}), self._counts.setdefault(line, {})
        for name, judge in self.judges.items():
            if judge.needs_passages and line == CLOSED_BOOK:
                continue
            found = self._asked(ask, f"{name} ({line})", judge, questions)
            failed = len(answered) - len(found)
            for measure in (m for m in judge.measures if m in self.measures):
                values[measure] = {q: judged.values[measure] for q, judged in found.items() if measure in judged.values}
                counts[measure] = {
                    "questions": len(values[measure]),
                    "failed": failed,
                    "undefined": len(found) - len(values[measure]),
                    "failure_rate": failed / len(answered),
                    "how": f"{judge.how(questions)} by {ask.llm.name}",
                }
                self.definitions[measure] = counts[measure]["how"]
            for q in answered:
                made = {"values": found[q].values, **found[q].detail} if q in found else {"failed": True}
                self._details.append({"query_id": q, "line": line, "judge": name, **made})
            if failed:
                told = "%s: judge %s: %d of %d questions have no value, since a reply could not be read or the answer failed"
                log.warning(told, ask.collection.slug, f"{name} ({line})", failed, len(answered))
        self._failures = ask.progress.failures

    def _asked(self, ask: Asking, name: str, judge: Judge, questions: Sequence[AnsweredQuestion]) -> dict[str, Judged]:
        """What a judge made of each question that it could judge, in their order."""
        try:
            found = ask.of(judge, questions)
        except UserError as error:
            log.warning("%s: judge %s is stopped and gives no value: %s", ask.collection.slug, name, error)
            return {}
        return {q.id: found[q.id] for q in questions if q.id in found}

    def means(self, line: str) -> dict[str, float]:
        """Of the questions that have a value; a measure without any has no mean."""
        return {name: sum(of.values()) / len(of) for name, of in self._values.get(line, {}).items() if of}

    def scores(self, line: str) -> Scores:
        return [(q, name, value) for name, of in self._values.get(line, {}).items() for q, value in of.items()]

    def told(self, collection: Collection, line: str, gold: Values) -> dict[str, Any]:
        """For metrics.json, and printed. `judged`, by measure: the `questions` with a value, those that `failed`, since a
        reply could not be read or there was no answer, those for which the measure is `undefined`, `failure_rate`, the share
        of all that failed, and `how` it was judged. `agreement`: with the measures that compare with gold answers, as the
        function of that name says."""
        counts = self._counts.get(line)
        if not counts:
            return {}
        means = self.means(line)
        columns = ("questions", "failed", "undefined", "failure_rate")
        rows = [[name, means.get(name), *(of[column] for column in columns)] for name, of in counts.items()]
        title = f"{collection.slug}: answers judged by an LLM ({line})"
        log_table(log, title, ("measure", "value", *columns[:3], "failure rate"), rows)
        for name in counts.keys() - means.keys():
            log.warning("%s: %s (%s) has no value: no question could be judged", collection.slug, name, line)
        agreeing = agreement(self._values[line], gold)
        pairs = [(ours, theirs, of) for ours, by_gold in agreeing.items() for theirs, of in by_gold.items()]
        if pairs:
            title = f"{collection.slug}: agreement of judged measures with gold answers, over questions ({line})"
            table = [[f"{ours}, {theirs}", *of.values()] for ours, theirs, of in pairs]
            log_table(log, title, ("measures", "questions", "correlation", "Kendall's tau"), table)
        return {"judged": counts, **({"agreement": agreeing} if agreeing else {})}

    def write(self, folder: Path, collection: Collection) -> None:
        """`judged/<slug>.jsonl`, a line a judge and answer: what it found; `judged/<slug>.failures.jsonl`, a line a reply that
        could not be read."""
        if self._counts:
            write_jsonl(folder / "judged" / f"{collection.slug}.jsonl", self._details)
            write_failures(folder / "judged", self._failures, f"{collection.slug}.failures.jsonl")
