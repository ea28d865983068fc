"""UtilSel: relevance selection, a pseudo-answer from what it kept, utility selection beside that answer."""

from dataclasses import dataclass

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.annotators.listwise import ListWise, ask_lists, in_order
from uar.annotation.annotators.pseudo_answer import STAGE
from uar.llm.call import Chain, Question


@dataclass(frozen=True)
class UtilSel(ListWise):
    """List-wise chain of arXiv 2504.05220: RelSel, pseudo-answer, UtilSel.

    Grades: 2 useful, 1 on topic only, 0 neither; label 1 is grade 2. A pool of which RelSel keeps nothing has no
    positive, and nothing more is asked. `rank`: UtilRank is asked beside UtilSel, and passages of a grade stand in its order.
    """

    answer_template: str = "pseudo_answer"
    answer_tokens: int = 160
    rank: bool = False
    rank_template: str = "utilrank"

    def __post_init__(self) -> None:
        super().__post_init__()
        for template in (self.relsel_template, self.answer_template):
            self._prompt(template)
        for template in (self.template, *([self.rank_template] if self.rank else [])):
            self._prompt(template, "answer")

    @property
    def stages(self) -> tuple[str, ...]:
        return ("relsel", STAGE, "utilsel", *(["utilrank"] if self.rank else []))

    @property
    def stage_grades(self) -> dict[str, int]:
        return {"relsel": 1, "utilsel": 2}

    def judgements(self, question: Question) -> Chain:
        pool = list(question.passages)
        if not pool:
            return []
        relevant = yield from self.relevant(question)
        if relevant is None:
            return None
        useful, order = [], relevant
        if relevant:
            answer = yield from self.answer(self.answer_template, self.answer_tokens, question, relevant)
            if answer is None:
                return None
            asked = [self.selection("utilsel", self.template, question, relevant, answer=answer)]
            if self.rank and len(relevant) > 1:
                asked.append(self.ranking("utilrank", self.rank_template, question, relevant, answer=answer))
            useful, *ranked = yield from ask_lists(asked)
            if useful is None or None in ranked:
                return None
            order = ranked[0].order if ranked else in_order(useful, relevant)
        grades = dict.fromkeys(pool, 0) | dict.fromkeys(relevant, 1) | dict.fromkeys(useful, 2)
        best_first = sorted(in_order(order, pool), key=lambda d: -grades[d])
        return ranked_judgements(best_first, grades, {}, positive=2)
