"""Cascade: a first annotator for everything, and a dearer one for what the first doubts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.annotators.ensemble import Ensemble
from uar.annotation.judgement import Judgement
from uar.errors import UserError
from uar.llm.call import Chain, Question
from uar.llm.prompted import one_of

SELECTED = "selected"
SECOND = "then_{}"  # stages of the second annotator, so that the ledger counts them apart


@dataclass(frozen=True)
class Cascade(Annotator):
    """`first` judges the pool. `then` judges again what has a doubt above `above`: those passages where it sees one a call,
    else the whole pool of a question whose mean doubt is; its judgements replace those of `first`. A passage that it was to
    judge and whose call failed is not judged.

    `doubt`: `entropy`, the uncertainty that `first` noted, in bits; `margin`, one minus the distance of the probabilities of
    the likeliest grade and the next, or of the shares of votes (SILICON, arXiv 2412.14461); `selected`: `first` need not say
    how sure it is, and `then` is shown those passages alone that it calls positive (TagLLM, arXiv 2602.20972).

    The models are the run's `llm` and its `llms`: those of `first`, then those of `then`; one model alone is asked by both.
    A score stays where both give probabilities or shares of votes, a grade where both have one scale; else it is the label.
    Passages are ranked by label, then score, then the rank that `first` gave. Neither annotator is calibrated.
    """

    first: Annotator
    then: Annotator
    above: float = 0.5
    doubt: str = "entropy"
    models: int = 2

    def __post_init__(self) -> None:
        one_of("doubt", self.doubt, ("entropy", "margin", SELECTED))
        if not 0 <= self.above < 1:
            raise UserError(f"annotator.above={self.above}: a doubt from 0 to below 1 is needed")
        for name, member in (("first", self.first), ("then", self.then)):
            if isinstance(member, Cascade) or not member.needs_llm:
                raise UserError(
                    f"annotator.{name}: {type(member).__name__} cannot be a part of a cascade; one that asks an LLM can"
                )
        if not self.first.notes_doubt and self.doubt != SELECTED:
            name = type(self.first).__name__
            raise UserError(
                f"annotator.first: {name} does not say how sure it is; use pointwise, umbrela, or an ensemble, or "
                f"annotator.doubt={SELECTED}"
            )
        alone = self.models == self.first.models == self.then.models == 1
        if not alone and self.models != self.first.models + self.then.models:
            raise UserError(
                f"{self.models} model(s) are given, and a cascade asks {self.first.models} first and then {self.then.models}; "
                "+llm@llms.NAME=CHOICE adds one"
            )
        if alone and self.first.asks() == self.then.asks():
            raise UserError(
                "annotator.first and annotator.then would ask one model the same; +llm@llms.NAME=CHOICE adds a dearer one"
            )

    @property
    def notes_doubt(self) -> bool:  # type: ignore[override]
        return self.then.notes_doubt

    @property
    def shows_images(self) -> bool:  # type: ignore[override]
        return self.first.shows_images and self.then.shows_images

    @property
    def needs_gold_answers(self) -> bool:  # type: ignore[override]
        return self.first.needs_gold_answers or self.then.needs_gold_answers

    @property
    def stages(self) -> tuple[str, ...]:
        return *self.first.stages, *map(SECOND.format, self.then.stages)

    @property
    def grades(self) -> tuple[int, int] | None:
        return self.first.grades if self.first.grades == self.then.grades else None

    @property
    def passage_wise(self) -> bool:
        return self.first.passage_wise and self.then.passage_wise

    def orders(self, query_id: str, pool: Sequence[str]) -> list[list[str]]:
        return self.first.orders(query_id, pool)[:1]

    def at_most(self) -> "Cascade":
        return _DoubtingAll(**{option.name: getattr(self, option.name) for option in fields(self)})

    def judgements(self, question: Question) -> Chain:
        judged = yield from self.first.chain(question)
        if not judged:
            return judged
        again = self._doubtful(judged)
        if not again:
            return self._joined(judged, [])
        whole = not self.then.passage_wise and self.doubt != SELECTED
        shown = {d: text for d, text in question.passages.items() if d in again or whole}
        second = yield from self._second(replace(question, passages=shown))
        kept = [j for j in judged if j.doc_id not in again]
        if not (kept or second):
            return None
        return self._joined(kept, second or [], {j.doc_id: j.rank for j in judged})

    def _doubtful(self, judged: Sequence[Judgement]) -> set[str]:
        """The passages that the second annotator decides on. Doubt that is not known is doubt."""
        if self.doubt == SELECTED:
            return {j.doc_id for j in judged if j.label}
        doubts = {j.doc_id: 1.0 if (doubt := self._doubt(j)) is None else doubt for j in judged}
        if self.then.passage_wise:
            return {d for d, doubt in doubts.items() if doubt > self.above}
        return set(doubts) if fmean(doubts.values()) > self.above else set()

    def _doubt(self, judgement: Judgement) -> float | None:
        if self.doubt == "entropy":
            return judgement.uncertainty
        if judgement.logprobs:
            return one_minus_margin(judgement.logprobs)
        return None if judgement.score is None or not 0 <= judgement.score <= 1 else 1 - abs(2 * judgement.score - 1)

    def _second(self, question: Question) -> Chain:
        """The chain of the second annotator, its calls with models and stages of their own."""
        ahead = self.models - self.then.models
        chain = self.then.chain(question)
        try:
            calls = next(chain)
            while True:
                replies = yield [replace(call, llm=call.llm + ahead, stage=SECOND.format(call.stage)) for call in calls]
                calls = chain.send(replies)
        except StopIteration as end:
            return end.value

    def _joined(
        self, first: Sequence[Judgement], second: Sequence[Judgement], ranks: Mapping[str, int] | None = None
    ) -> list[Judgement]:
        """`ranks`: of all passages by the first annotator."""
        scored, scaled = _has_shares(self.first) and _has_shares(self.then), self.grades is not None
        alike = [
            replace(j, score=j.score if scored else None, grade=j.grade if scaled else j.label, votes=())
            for j in (*first, *second)
        ]
        if not (first and second):
            return alike  # in the order of whoever judged
        places = ranks or {}
        alike.sort(key=lambda j: (-j.label, -(j.score or 0.0), places[j.doc_id]))
        return [replace(j, rank=rank) for rank, j in enumerate(alike, start=1)]


class _DoubtingAll(Cascade):
    """For what a run may ask at most."""

    def _doubtful(self, judged: Sequence[Judgement]) -> set[str]:
        return {j.doc_id for j in judged}


def _has_shares(annotator: Annotator) -> bool:
    """Whether its scores are probabilities or shares of votes."""
    return annotator.notes_doubt and not (isinstance(annotator, Ensemble) and annotator.combine != "votes")


def one_minus_margin(logprobs: Sequence[float]) -> float:
    """1 - (p1 - p2) of the two likeliest of several alternatives with log-likelihoods in nat: 0 sure, 1 a tie."""
    weights = sorted((math.exp(value - max(logprobs)) for value in logprobs), reverse=True)
    return 1 - (weights[0] - weights[1]) / sum(weights) if math.isfinite(max(logprobs)) else 1.0
