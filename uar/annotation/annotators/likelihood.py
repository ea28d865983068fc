"""Likelihood: a passage is as useful as it makes the question, or the answer, likely."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.annotators.pseudo_answer import STAGE, VARIABLES, written_answer
from uar.annotation.annotators.scored import Rule
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import Prompted, one_of
from uar.llm.prompts import ChatPrompt, TextPrompt, load_chat, load_text
from uar.llm.prompts.escaping import as_material, without_control_tokens
from uar.llm.record import Generate, Outcome, Score
from uar.llm.replies import check_score


@dataclass(frozen=True)
class Likelihood(Prompted, Annotator):
    """Score = mean log-likelihood (nat a token) of a target text after the passage.

    `target`: `question`, or `answer`, which is the gold answer (`answer=gold`; the REPLUG utility) or one that the LLM
    writes from the pool first (`answer=pseudo`). Of several gold answers the first counts. Positives by `rule` and
    `threshold`, see `Rule`, among the passages whose call was answered, see `Rule.judge_answered`.
    """

    target: str = "question"
    answer: str = "gold"
    rule: str = "top_percent"
    threshold: float = 10.0
    answer_template: str = "pseudo_answer"
    answer_tokens: int = 96

    def __post_init__(self) -> None:
        one_of("target", self.target, ("question", "answer"))
        one_of("answer", self.answer, ("gold", "pseudo"))
        Rule(self.rule, self.threshold)
        self._prompt  # noqa: B018 prompts that cannot be read are refused before anything is asked
        if self._pseudo:
            self._answer_prompt  # noqa: B018

    @property
    def stages(self) -> tuple[str, ...]:
        scored = f"likelihood_{self.target}"
        return (scored,) if not self._pseudo else (STAGE, scored)

    @property
    def _pseudo(self) -> bool:
        return self.target == "answer" and self.answer == "pseudo"

    @property
    def needs_gold_answers(self) -> bool:  # type: ignore[override]
        return self.target == "answer" and not self._pseudo

    @property
    def passage_wise(self) -> bool:
        return not self._pseudo

    @cached_property
    def _answer_prompt(self) -> ChatPrompt:
        return load_chat(self.answer_template, VARIABLES)

    @cached_property
    def _prompt(self) -> TextPrompt:
        return load_text(self.template, frozenset({"passage", "query"} | ({"answer"} if self.target == "answer" else set())))

    def chain(self, question: Question) -> Chain:
        values = {"query": without_control_tokens(question.text)}
        if self.target == "answer":
            answer = yield from self._answer(question)
            if answer is None:
                return None
            values["answer"] = without_control_tokens(answer)
        prompt = self._prompt
        calls = []
        for doc_id, text in question.passages.items():
            prefix, target = prompt.render(passage=without_control_tokens(self.cut(text)), **values)
            example = '{"logprob": -1.0, "tokens": 1}'
            request = Score(prefix, target)
            calls.append(Call(self.stages[-1], prompt.name, prompt.hash, (doc_id,), request, check_score, example=example))
        replies = yield calls
        answered = [reply.mean_logprob() if check_score(reply) == Outcome.OK else None for reply in replies]
        return Rule(self.rule, self.threshold).judge_answered(dict(zip(question.passages, answered, strict=True)))

    def _answer(self, question: Question) -> Chain:
        if not self._pseudo:
            return question.answers[0] if question.answers else None
        prompt = self._answer_prompt
        passages = [self.shown(text) for text in question.passages.values()]
        values: dict[str, Any] = {"passages": passages, "considered": list(range(1, len(passages) + 1))}
        request = Generate(prompt.render(query=as_material(question.text), **values), self.answer_tokens)
        return (yield from written_answer(prompt, request, list(question.passages)))
