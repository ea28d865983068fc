"""Likelihood: a passage is as useful as it makes the question, or the answer, likely."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from uar.annotation.parsing import check_text
from uar.annotation.prompts import ChatPrompt, TextPrompt, load_chat, load_text
from uar.annotation.record import Generate, Outcome, Record, Reply, Score
from uar.annotation.stages.annotator import Annotator, Call, Chain, Question, ranked_judgements
from uar.errors import UserError


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
        return (scored,) if not self._pseudo else ("pseudo_answer", scored)

    @property
    def _pseudo(self) -> bool:
        return self.target == "answer" and self.answer == "pseudo"

    @property
    def first_prompt_hash(self) -> str:
        return self._answer_prompt().hash if self._pseudo else self._prompt().hash

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

    def _answer_prompt(self) -> ChatPrompt:
        return load_chat(self.answer_template, frozenset({"query", "passages"}))

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
        scores: dict[str, float | None] = {d: r.mean_logprob() for d, r in zip(question.passages, replies, strict=True)}
        return self.judge(scores)

    def judge(self, scores: dict[str, float | None]) -> list:
        """Judgements from the scores of one pool, which may be empty."""
        order = sorted(scores, key=lambda d: (-(scores[d] or 0.0), d))
        if self.rule == "top_percent":
            chosen = set(order[: max(1, math.floor(len(order) * self.threshold / 100))])
        else:
            best = (scores[order[0]] or 0.0) if order else 0.0
            chosen = {d for d in order if (scores[d] or 0.0) >= best - self.threshold}
        return ranked_judgements(order, {d: int(d in chosen) for d in order}, scores, positive=1)

    def _answer(self, question: Question) -> Chain:
        if not self._pseudo:
            return question.answers[0] if question.answers else None
        prompt = self._answer_prompt()
        passages = [self.shown(text) for text in question.passages.values()]
        request = Generate(prompt.render(query=question.text, passages=passages), self.answer_tokens)
        (reply,) = yield [Call("pseudo_answer", prompt.name, prompt.hash, tuple(question.passages), request, check_text)]
        return reply.output.strip() if check_text(reply) == Outcome.OK else None


def _check_score(reply: Reply) -> Outcome:
    if reply.outcome != Outcome.OK:
        return reply.outcome
    return Outcome.OK if math.isfinite(reply.mean_logprob()) else Outcome.UNPARSABLE
