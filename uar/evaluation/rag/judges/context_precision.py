"""Context precision: whether the passages that an answer is made from stand first."""

from dataclasses import dataclass

from uar.evaluation.rag.judges.judge import AnsweredQuestion, Judge, Judged
from uar.evaluation.rag.structured_replies import YES_NO_PATTERN, check_yes_no, read_yes_no
from uar.llm.call import Chain
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome


@dataclass(frozen=True)
class ContextPrecision(Judge):
    """One call a passage: does it help to arrive at the answer? The value is the average precision of the passages in rank
    order, the mean over the helpful ones of the share of helpful ones down to there (RAGAS' context precision without a
    reference). 0 where none helps or none was retrieved; not defined where there is no answer."""

    measures = ("ContextPrecision",)
    shows_images = True
    prompts = {"template": frozenset({"query", "answer", "passage"})}

    verdict_tokens: int = 8

    def judged(self, question: AnsweredQuestion) -> Chain:
        if not question.answer:
            return Judged({}, {})
        shown = {"query": as_material(question.text), "answer": as_material(question.answer)}
        calls = []
        for d in question.ranked:
            values = {**shown, "passage": self.shown(question.passages[d])}
            calls.append(
                self.call("template", values, self.verdict_tokens, check_yes_no, (d,), YES_NO_PATTERN, question.image)
            )
        replies = (yield calls) if calls else []
        read = [read_yes_no(reply) for reply in replies]
        if any(outcome != Outcome.OK for outcome, _ in read):
            return None
        helps = [yes for _, yes in read]
        precisions = [sum(helps[:at]) / at for at, yes in enumerate(helps, start=1) if yes]
        value = sum(precisions) / len(precisions) if precisions else 0.0
        return Judged({"ContextPrecision": value}, {"helps": dict(zip(question.ranked, helps, strict=True))})
