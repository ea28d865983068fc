"""Likelihood: a passage is as useful as it makes the question, or the answer, likely."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.annotators.pseudo_answer import STAGE, VARIABLES, written_answer
from uar.annotation.annotators.scored import Rule, same_thresholds
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import Prompted, one_of
from uar.llm.prompts import ChatPrompt, TextPrompt, load_chat, load_text
from uar.llm.prompts.escaping import as_material, without_control_tokens
from uar.llm.record import Generate, Outcome, Score
from uar.llm.replies import check_score

Logprob = tuple[float, int]  # of a target: sum in nat, tokens


@dataclass(frozen=True)
class Likelihood(Prompted, Annotator):
    """Score = mean log-likelihood (nat a token) of a target text after the passage.

    `target`: `question`; `answer` after the question, which is the gold answer (`answer=gold`; the REPLUG utility) or one that
    the LLM writes from the pool first (`answer=pseudo`); or `both`, the mean of the question's tokens plus that of the
    answer's. Of several gold answers that which a passage makes likeliest counts. `gain`: what the passage adds, the
    log-likelihood less that without any passage. Positives by `rule`, `threshold` and `floor`, see `Rule`, among the passages
    whose call was answered, see `Rule.judge_answered`.
    """

    target: str = "question"
    answer: str = "gold"
    rule: str = "top_percent"
    threshold: float | None = None
    floor: float | None = None
    gain: bool = False
    answer_template: str = "pseudo_answer"
    answer_tokens: int = 96

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("target", self.target, ("question", "answer", "both"))
        one_of("answer", self.answer, ("gold", "pseudo"))
        self._rule  # noqa: B018
        self._prompt  # noqa: B018 prompts that cannot be read are refused before anything is asked
        if self._pseudo:
            self._answer_prompt  # noqa: B018

    @property
    def stages(self) -> tuple[str, ...]:
        scored = f"likelihood_{self.target}"
        return (scored,) if not self._pseudo else (STAGE, scored)

    @property
    def _pseudo(self) -> bool:
        return self.target != "question" and self.answer == "pseudo"

    @property
    def needs_gold_answers(self) -> bool:  # type: ignore[override]
        return self.target != "question" and not self._pseudo

    @property
    def passage_wise(self) -> bool:
        return not self._pseudo

    @cached_property
    def _answer_prompt(self) -> ChatPrompt:
        return load_chat(self.answer_template, VARIABLES)

    @cached_property
    def _prompt(self) -> TextPrompt:
        return load_text(self.template, frozenset({"passage", "query"} | ({"answer"} if self.target != "question" else set())))

    @property
    def _rule(self) -> Rule:
        return Rule(self.rule, self.threshold, self.floor)

    def notes(self, sizes: Iterable[int]) -> str | None:
        return same_thresholds(sizes, self._rule.least) if self.rule == "top_percent" else None

    def judgements(self, question: Question) -> Chain:
        answers: list[str] = []
        if self.target != "question":
            answers = [without_control_tokens(answer) for answer in (yield from self._answers(question))]
            if not answers:
                return None
        targets = answers if self.target == "answer" else ["", *answers]  # "": the question alone
        shown = {d: without_control_tokens(self.cut(text)) for d, text in question.passages.items()}
        if self.gain:
            shown[""] = ""  # no passage
        query = without_control_tokens(question.text)
        calls = [self._call(d, text, query=query, answer=target) for d, text in shown.items() for target in targets]
        replies = yield calls
        found: dict[str, list[Logprob | None]] = {d: [] for d in shown}
        for call, reply in zip(calls, replies, strict=True):
            found["".join(call.doc_ids)].append(reply.target_logprob() if check_score(reply) == Outcome.OK else None)
        return self._rule.judge_answered(self._scores({d: self._means(logprobs) for d, logprobs in found.items()}))

    def _call(self, doc_id: str, passage: str, **values: str) -> Call:
        prefix, target = self._prompt.render(passage=passage, **values)
        request = Score(prefix if passage else prefix.lstrip(), target)
        example = '{"logprob": -1.0, "tokens": 1}'
        shown = (doc_id,) if doc_id else ()
        return Call(self.stages[-1], self._prompt.name, self._prompt.hash, shown, request, check_score, example=example)

    def _means(self, found: Sequence[Logprob | None]) -> list[float | None]:
        """Nat a token of each target; of `both`, of each answer with the question before it."""
        if self.target != "both":
            return [None if one is None else one[0] / max(1, one[1]) for one in found]
        alone, *together = found
        if alone is None:
            return [None] * len(together)
        (asked, length), known = alone, [one and (one[0] - alone[0], one[1] - alone[1]) for one in together]
        return [None if one is None else asked / max(1, length) + one[0] / max(1, one[1]) for one in known]

    def _scores(self, known: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
        """Of each passage, from the log-likelihoods of the targets after it; None where a call that it needs failed."""
        bare = known.get("", [0.0] * max(map(len, known.values()), default=0))
        scores: dict[str, float | None] = {}
        for doc_id, logprobs in known.items():
            if doc_id:
                gains = [a - b for a, b in zip(logprobs, bare, strict=True) if a is not None and b is not None]
                scores[doc_id] = max(gains) if len(gains) == len(bare) else None
        return scores

    def _answers(self, question: Question) -> Chain:
        if not self._pseudo:
            return question.answers
        prompt = self._answer_prompt
        passages = [self.shown(text) for text in question.passages.values()]
        values: dict[str, Any] = {"passages": passages, "considered": list(range(1, len(passages) + 1))}
        request = Generate(prompt.render(query=as_material(question.text), **values), self.answer_tokens)
        answer = yield from written_answer(prompt, request, list(question.passages))
        return [] if answer is None else [answer]
