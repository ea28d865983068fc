"""Likelihood: a passage is as useful as it makes the question, or the answer, likely."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from uar.annotation.prompts import TextPrompt, load_text
from uar.annotation.record import Outcome, Record, Reply, Score
from uar.annotation.stages.annotator import Annotator, Call, Chain, Judgement, Question, ranked_judgements
from uar.annotation.stages.pseudo_answer import STAGE, answer_prompt, pseudo_answer
from uar.errors import UserError
from uar.ranking import best_first


@dataclass(frozen=True)
class Likelihood(Annotator):
    """Score = mean log-likelihood (nat a token) of a target text after the passage.

    `target`: `question`, or `answer`, which is the gold answer (`answer=gold`; the REPLUG utility) or one that the LLM
    writes from the pool first (`answer=pseudo`). Positives by `rule`: `top_percent` (the best `threshold` percent of the
    pool, rounded down, at least one) or `margin` (all within `threshold` nat a token of the best).
    """

    target: str = "question"
    answer: str = "gold"
    rule: str = "top_percent"
    threshold: float = 10.0
    answer_template: str = "pseudo_answer"
    answer_tokens: int = 96

    def __post_init__(self) -> None:
        for name, allowed in (
            ("target", ("question", "answer")),
            ("answer", ("gold", "pseudo")),
            ("rule", ("top_percent", "margin")),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"annotator.{name}={getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if self.threshold < 0 or (self.rule == "top_percent" and self.threshold > 100):
            raise UserError(
                f"annotator.threshold={self.threshold}: a percentage (0-100) or a margin in nat (0 or more) is needed"
            )

    @property
    def stages(self) -> tuple[str, ...]:
        scored = f"likelihood_{self.target}"
        return (scored,) if not self._pseudo else (STAGE, scored)

    @property
    def _pseudo(self) -> bool:
        return self.target == "answer" and self.answer == "pseudo"

    @property
    def needs_gold_answers(self) -> bool:
        return self.target == "answer" and not self._pseudo

    @property
    def first_prompt_hash(self) -> str:
        return answer_prompt(self.answer_template).hash if self._pseudo else self._prompt().hash

    def annotated_pools(self, records: Iterable[Record]) -> dict[str, list[str]]:
        """Passages are judged one by one, so that the pools of several runs add up."""
        if self._pseudo:
            return super().annotated_pools(records)
        pools: dict[str, dict[str, None]] = {}
        for record in records:
            pools.setdefault(record.query_id, {}).update(dict.fromkeys(record.doc_ids))
        return {q: list(pool) for q, pool in pools.items()}

    def _prompt(self) -> TextPrompt:
        return load_text(self.template, frozenset({"passage", "query"} | ({"answer"} if self.target == "answer" else set())))

    def chain(self, question: Question) -> Chain:
        values = {"query": question.text}
        if self.target == "answer":
            answer = yield from self._answer(question)
            if answer is None:
                return None
            values["answer"] = answer
        prompt = self._prompt()
        calls = []
        for doc_id, text in question.passages.items():
            prefix, target = prompt.render(passage=self.shown(text), **values)
            request = Score(prefix, target)
            calls.append(Call(self.stages[-1], prompt.name, prompt.hash, (doc_id,), request, _check_score))
        replies = yield calls
        if any(_check_score(reply) != Outcome.OK for reply in replies):
            return None
        return self.judge({d: r.mean_logprob() for d, r in zip(question.passages, replies, strict=True)})

    def judge(self, scores: dict[str, float]) -> list[Judgement]:
        """Judgements from the scores of one pool, which may be empty."""
        ranked = best_first(scores.items())
        order = [d for d, _ in ranked]
        if self.rule == "top_percent":
            chosen = set(order[: max(1, math.floor(len(order) * self.threshold / 100))])
        else:
            chosen = {d for d, score in ranked if score >= ranked[0][1] - self.threshold}
        return ranked_judgements(order, {d: int(d in chosen) for d in order}, scores, positive=1)

    def _answer(self, question: Question) -> Chain:
        if not self._pseudo:
            return question.answers[0] if question.answers else None
        pool = list(question.passages)
        return (yield from pseudo_answer(self, self.answer_template, self.answer_tokens, question, pool))


def _check_score(reply: Reply) -> Outcome:
    if reply.outcome != Outcome.OK:
        return reply.outcome
    return Outcome.OK if math.isfinite(reply.mean_logprob()) else Outcome.UNPARSABLE
