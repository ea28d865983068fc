"""Faithfulness: the share of an answer's statements that the passages state."""

from dataclasses import dataclass

from uar.evaluation.rag.judges.judge import AnsweredQuestion, Judge, Judged
from uar.evaluation.rag.structured_replies import check_list, labels_pattern, read_labels, read_list
from uar.llm.call import Chain
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply

LABELS = ("yes", "no")


@dataclass(frozen=True)
class Faithfulness(Judge):
    """Two calls (RAGAS, arXiv 2309.15217): the statements of the answer, then for each whether it follows from the passages.
    Not defined where there is no answer, or one without a statement; 0 where there are statements and no passages."""

    measures = ("Faithfulness",)
    shows_images = True
    prompts = {"statements_template": frozenset({"query", "answer"}), "template": frozenset({"statements", "passages"})}

    statements_template: str = "rag_statements"
    statement_tokens: int = 256

    def judged(self, question: AnsweredQuestion) -> Chain:
        if not question.answer:
            return Judged({}, {})
        shown = {"query": as_material(question.text), "answer": as_material(question.answer)}
        (reply,) = yield [self.call("statements_template", shown, self.statement_tokens, check_list, image=question.image)]
        outcome, statements = read_list(reply)
        if outcome != Outcome.OK:
            return None
        if not statements:
            return Judged({}, {"statements": {}})
        followed = ["no"] * len(statements)
        if question.passages:
            followed = yield from self._follow(question, statements)
        if followed is None:
            return None
        share = followed.count("yes") / len(followed)
        return Judged({"Faithfulness": share}, {"statements": dict(zip(statements, followed, strict=True))})

    def _follow(self, question: AnsweredQuestion, statements: list[str]) -> Chain:
        """Part of a chain: yes or no for each statement; None where the reply failed."""
        number = len(statements)

        def check(reply: Reply) -> Outcome:
            return read_labels(reply, number, LABELS)[0]

        passages = [self.shown(text) for text in question.passages.values()]
        values = {"statements": [as_material(s) for s in statements], "passages": passages}
        pattern = labels_pattern(number, LABELS)
        (reply,) = yield [self.call("template", values, 16 + 8 * number, check, question.passages, pattern)]
        outcome, labels = read_labels(reply, number, LABELS)
        return labels if outcome == Outcome.OK else None
