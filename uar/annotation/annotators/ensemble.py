"""Ensemble: one annotator asked several times, of one model or of several, in one order of the pool or in several, with one
prompt or with several, and what the answers agree on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, pstdev

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.annotators.scored import Rule, entropy
from uar.annotation.judgement import Judgement
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.call import Asker, Call, Chain, Question
from uar.llm.prompted import Chatting, one_of
from uar.llm.prompts.template import content_hash
from uar.llm.record import Reply
from uar.storage.ordering import rank_of

MAJORITY = math.nextafter(0.5, 1.0)  # of votes: two that differ have none


@dataclass(frozen=True)
class Ensemble(Annotator):
    """`member` is asked `samples` times of each of `models` models (the run's `llm` and its `llms`); repeats differ by their
    seed, at `temperature`. Each is asked with the pool in `shuffles` orders, as it is and drawn by their numbers: a list-wise
    member that prefers what it sees first, or last, then votes for each place of a passage. `templates`: prompts that take the
    place of the member's own, each of which is asked; differently formed ones disagree where the model is unsure
    (CoAnnotating, arXiv 2310.15638).

    `combine=votes`: score = share of the members whose label is 1, label 1 from `threshold` (a share; None: more than half)
    up, uncertainty = entropy of the share in bits. `combine=mean_rank`: score = minus the mean rank, label 1 for the best
    `threshold` percent (None: 10), uncertainty = standard deviation of the ranks over the length of the pool. One vote alone
    has no uncertainty. A member whose reply failed abstains; where less than half of them answered, the question, or the
    passage, gets no label.
    """

    reading = frozenset({"combine", "threshold"})
    notes_doubt = True

    member: Annotator
    samples: int = 1
    models: int = 1
    shuffles: int = 1
    templates: Sequence[str] | None = None
    temperature: float = 0.7
    combine: str = "votes"
    threshold: float | None = None

    def __post_init__(self) -> None:
        one_of("combine", self.combine, ("votes", "mean_rank"))
        if self.combine == "votes" and not 0 < self._threshold <= 1:
            raise UserError(f"annotator.threshold={self.threshold}: a share of votes above 0 and up to 1 is needed")
        if self.combine == "mean_rank":
            Rule("top_percent", self._threshold)
        prompts = len(self.templates or [None])
        if min(self.samples, self.shuffles) < 1 or self.samples * self.models * self.shuffles * prompts < 2:
            raise UserError(
                f"annotator.samples={self.samples} of {self.models} model(s), annotator.shuffles={self.shuffles}: an ensemble "
                "needs two members; raise one of these, give annotator.templates or add a model with +llm@llms.NAME=CHOICE"
            )
        name = type(self.member).__name__
        if not self.member.needs_llm or self.member.models > 1 or isinstance(self.member, Ensemble):
            raise UserError(f"annotator.member: {name} cannot be a member; an annotator that asks an LLM itself is needed")
        if self.shuffles > 1 and self.member.passage_wise:
            raise UserError(f"annotator.shuffles={self.shuffles}: {name} sees one passage a call, in no order; give 1")
        if self.samples > 1 and not self.member.can_sample:
            raise UserError(f"annotator.samples={self.samples}: {name} says the same each time; add models instead")
        if self.samples > 1 and not self.temperature > 0:
            raise UserError(f"annotator.temperature={self.temperature}: several samples need a temperature above 0")
        self._members  # noqa: B018 a prompt that cannot be read is refused before anything is asked
        if self.templates and len({content_hash(name) for name in self.templates}) < prompts:
            raise UserError(f"annotator.templates={list(self.templates)}: two are one prompt, which would say the same")

    def lacks(self, query_ids: Iterable[str]) -> str | None:
        return self.member.lacks(query_ids)

    def written(self) -> Mapping[str, Asker]:
        return self.member.written()

    @property
    def _threshold(self) -> float:
        return {"votes": MAJORITY, "mean_rank": 10.0}[self.combine] if self.threshold is None else self.threshold

    @cached_property
    def _members(self) -> list[tuple[int, int, Annotator]]:
        """Each with the number of the model that it asks and that of the order in which it sees the pool."""
        found: list[tuple[int, int, Annotator]] = []
        for llm in range(self.models):
            for sample in range(self.samples):
                one = self.member
                if self.samples > 1 and isinstance(one, Chatting):
                    one = replace(one, temperature=self.temperature, sample=sample)  # type: ignore[call-arg]
                forms = [replace(one, template=name) for name in self.templates or ()]  # type: ignore[call-arg]
                found += [(llm, order, form) for form in forms or [one] for order in range(self.shuffles)]
        return found

    def orders(self, query_id: str, pool: Sequence[str]) -> list[list[str]]:
        return [_shuffled(query_id, pool, order) for _, order, _ in self._members]

    @property
    def shows_images(self) -> bool:  # type: ignore[override]
        return self.member.shows_images

    @property
    def needs_gold_answers(self) -> bool:  # type: ignore[override]
        return self.member.needs_gold_answers

    @property
    def stages(self) -> tuple[str, ...]:
        return self.member.stages

    @property
    def shows_labels_of(self) -> Collection | None:
        return self.member.shows_labels_of

    @property
    def passage_wise(self) -> bool:
        return self.member.passage_wise

    def judgements(self, question: Question) -> Chain:
        """The members' chains side by side: what they ask next is asked together."""
        shown = [replace(question, passages={d: question.passages[d] for d in order})
                 for order in self.orders(question.id, list(question.passages))]  # fmt: skip
        members = zip(self._members, shown, strict=True)
        chains = [(llm, member.chain(seen)) for (llm, _, member), seen in members]
        ended: list[list[Judgement] | None] = [None] * len(chains)
        waiting: dict[int, list[Reply] | None] = dict.fromkeys(range(len(chains)))
        while waiting:
            asked: dict[int, list[Call]] = {}
            for at, replies in waiting.items():
                llm, chain = chains[at]
                try:
                    calls = next(chain) if replies is None else chain.send(replies)
                    asked[at] = [replace(call, llm=llm) for call in calls]
                except StopIteration as end:
                    ended[at] = end.value
            if not asked:
                break
            came = iter((yield [call for calls in asked.values() for call in calls]))
            waiting = {at: [next(came) for _ in calls] for at, calls in asked.items()}
        if 2 * ended.count(None) > len(chains):
            return None
        judged = self._combined(ended, list(question.passages))
        return judged or (None if question.passages else [])

    def _combined(self, members: Sequence[Sequence[Judgement] | None], pool: Sequence[str]) -> list[Judgement]:
        """Of the passages that at least half of the members judged."""
        of_member = [{j.doc_id: j for j in judgements or ()} for judgements in members]
        votes = {d: tuple(judged[d].label if d in judged else None for judged in of_member) for d in pool}
        every = {d: [judged[d] for judged in of_member if d in judged] for d in pool}
        said = {d: js for d, js in every.items() if 2 * len(js) >= len(members)}
        if self.combine == "votes":
            scores = {d: fmean(j.label for j in js) for d, js in said.items()}
            doubts = {d: entropy(share) for d, share in scores.items()}
            rule = Rule("at_least", self._threshold)
        else:
            scores = {d: -fmean(j.rank for j in js) for d, js in said.items()}
            doubts = {d: pstdev(j.rank for j in js) / len(pool) for d, js in said.items()}
            rule = Rule("top_percent", self._threshold)
        grades = {d: round(fmean(j.grade for j in js)) for d, js in said.items()}
        unsure = {d: doubt if len(said[d]) > 1 else None for d, doubt in doubts.items()}
        return [
            replace(j, grade=grades[j.doc_id], uncertainty=unsure[j.doc_id], votes=votes[j.doc_id]) for j in rule.judge(scores)
        ]


def _shuffled(query_id: str, pool: Sequence[str], order: int) -> list[str]:
    """The pool as it is where `order` is 0, else its places drawn by (order, query id)."""
    places = range(len(pool))
    drawn = sorted(places, key=lambda place: rank_of(order, "shown", query_id, str(place))) if order else places
    return [pool[place] for place in drawn]
