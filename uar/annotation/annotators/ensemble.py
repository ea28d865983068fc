"""Ensemble: one annotator asked several times, of one model or of several, and what they agree on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, pstdev

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.annotators.scored import Rule, entropy
from uar.annotation.judgement import Judgement
from uar.errors import UserError
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import Chatting, one_of
from uar.llm.record import Reply


@dataclass(frozen=True)
class Ensemble(Annotator):
    """`member` is asked `samples` times of each of `models` models (the run's `llm` and its `llms`); repeats differ by their
    seed, at `temperature`.

    `combine=votes`: score = share of the members whose label is 1, label 1 from `threshold` (a share; None: 0.5) up,
    uncertainty = entropy of the share in bits. `combine=mean_rank`: score = minus the mean rank, label 1 for the best
    `threshold` percent (None: 10), uncertainty = standard deviation of the ranks over the length of the pool. A member whose
    reply failed abstains; where less than half of them answered, the question, or the passage, gets no label.
    """

    reading = frozenset({"combine", "threshold"})

    member: Annotator
    samples: int = 1
    models: int = 1
    temperature: float = 0.7
    combine: str = "votes"
    threshold: float | None = None

    def __post_init__(self) -> None:
        one_of("combine", self.combine, ("votes", "mean_rank"))
        if self.combine == "votes" and not 0 < self._threshold <= 1:
            raise UserError(f"annotator.threshold={self.threshold}: a share of votes above 0 and up to 1 is needed")
        if self.combine == "mean_rank":
            Rule("top_percent", self._threshold)
        if self.samples < 1 or self.samples * self.models < 2:
            raise UserError(
                f"annotator.samples={self.samples} of {self.models} model(s): an ensemble needs two members; "
                "raise annotator.samples or add a model with +llm@llms.NAME=CHOICE"
            )
        name = type(self.member).__name__
        if isinstance(self.member, Ensemble) or not self.member.needs_llm:
            raise UserError(f"annotator.member: {name} cannot be a member; an annotator that asks an LLM itself is needed")
        if self.samples > 1 and not self.member.can_sample:
            raise UserError(f"annotator.samples={self.samples}: {name} says the same each time; add models instead")
        if self.samples > 1 and not self.temperature > 0:
            raise UserError(f"annotator.temperature={self.temperature}: several samples need a temperature above 0")

    @property
    def _threshold(self) -> float:
        return {"votes": 0.5, "mean_rank": 10.0}[self.combine] if self.threshold is None else self.threshold

    @cached_property
    def _members(self) -> list[tuple[int, Annotator]]:
        """Each with the number of the model that it asks."""
        found: list[tuple[int, Annotator]] = []
        for llm in range(self.models):
            for sample in range(self.samples):
                one = self.member
                if self.samples > 1 and isinstance(one, Chatting):
                    one = replace(one, temperature=self.temperature, sample=sample)  # type: ignore[call-arg]
                found.append((llm, one))
        return found

    @property
    def needs_gold_answers(self) -> bool:  # type: ignore[override]
        return self.member.needs_gold_answers

    @property
    def stages(self) -> tuple[str, ...]:
        return self.member.stages

    @property
    def passage_wise(self) -> bool:
        return self.member.passage_wise

    def chain(self, question: Question) -> Chain:
        """The members' chains side by side: what they ask next is asked together."""
        chains = [(llm, member.chain(question)) for llm, member in self._members]
        ended: list[list[Judgement] | None] = []
        waiting: dict[int, list[Reply] | None] = dict.fromkeys(range(len(chains)))
        while waiting:
            asked: dict[int, list[Call]] = {}
            for at, replies in waiting.items():
                llm, chain = chains[at]
                try:
                    calls = next(chain) if replies is None else chain.send(replies)
                    asked[at] = [replace(call, llm=llm) for call in calls]
                except StopIteration as end:
                    ended.append(end.value)
            if not asked:
                break
            came = iter((yield [call for calls in asked.values() for call in calls]))
            waiting = {at: [next(came) for _ in calls] for at, calls in asked.items()}
        good = [judgements for judgements in ended if judgements is not None]
        if 2 * len(good) < len(chains):
            return None
        judged = self._combined(good, list(question.passages), len(chains) / 2)
        return judged or (None if question.passages else [])

    def _combined(self, members: Sequence[Sequence[Judgement]], pool: Sequence[str], least: float) -> list[Judgement]:
        """Of the passages that at least so many members judged."""
        every: dict[str, list[Judgement]] = {d: [] for d in pool}
        for judgements in members:
            for judgement in judgements:
                every[judgement.doc_id].append(judgement)
        said = {d: js for d, js in every.items() if len(js) >= least}
        if self.combine == "votes":
            scores = {d: fmean(j.label for j in js) for d, js in said.items()}
            unsure = {d: entropy(share) for d, share in scores.items()}
            rule = Rule("at_least", self._threshold)
        else:
            scores = {d: -fmean(j.rank for j in js) for d, js in said.items()}
            unsure = {d: pstdev(j.rank for j in js) / len(pool) for d, js in said.items()}
            rule = Rule("top_percent", self._threshold)
        grades = {d: round(fmean(j.grade for j in js)) for d, js in said.items()}
        return [replace(j, grade=grades[j.doc_id], uncertainty=unsure[j.doc_id]) for j in rule.judge(scores)]
