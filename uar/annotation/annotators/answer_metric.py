"""QA metric: a passage is as useful as the answer that the LLM gives from it alone is right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from uar.annotation.annotators.passagewise import PassageWise
from uar.annotation.annotators.scored import Rule
from uar.collections.answer_match import exact_match, f1, rouge_l
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import one_of
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome
from uar.llm.replies import check_answer

METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"em": exact_match, "f1": f1, "rouge_l": rouge_l}

LEAST = 0.5  # metric of a positive, where annotator.threshold does not say it


@dataclass(frozen=True)
class QAMetric(PassageWise):
    """Score = `metric` (em, f1 or rouge_l, from 0 to 1, the best over the gold answers) of the answer from one passage.
    Positives by `rule` and `threshold`, see `Rule`, among the passages whose call was answered. The answers are kept, so
    another metric asks nothing."""

    variables = frozenset({"query", "passage"})
    needs_gold_answers = True
    shows_images = True

    metric: str = "f1"
    rule: str = "at_least"
    threshold: float | None = None
    answer_tokens: int = 24

    def __post_init__(self) -> None:
        one_of("metric", self.metric, tuple(METRICS))
        self._rule  # noqa: B018
        super().__post_init__()

    @property
    def _rule(self) -> Rule:
        least = LEAST if self.rule == "at_least" and self.threshold is None else self.threshold
        return Rule(self.rule, least)

    @property
    def stages(self) -> tuple[str, ...]:
        return ("passage_answer",)

    def judgements(self, question: Question) -> Chain:
        if not question.answers:
            return None
        prompt, query = self.prompt, as_material(question.text)
        calls = []
        for doc_id, text in question.passages.items():
            messages = prompt.render(image=question.image, query=query, passage=self.shown(text))
            request = self.generate(messages, self.answer_tokens)
            calls.append(Call("passage_answer", prompt.name, prompt.hash, (doc_id,), request, check_answer, example="unknown"))
        replies = yield calls
        measure = METRICS[self.metric]
        answered = [measure(r.text, question.answers) if check_answer(r) == Outcome.OK else None for r in replies]
        return self._rule.judge_answered(dict(zip(question.passages, answered, strict=True)))
