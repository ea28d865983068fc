"""UtilRank: relevance selection, a pseudo-answer, and a ranking by utility beside that answer."""

from collections.abc import Iterable
from dataclasses import dataclass

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.annotators.listwise import ListWise, Ranking, ask_lists, in_order
from uar.annotation.annotators.pseudo_answer import STAGE
from uar.annotation.annotators.scored import Rule, same_thresholds, top_percent
from uar.llm.call import Chain, Question


@dataclass(frozen=True)
class UtilRank(ListWise):
    """List-wise chain of arXiv 2504.05220: RelSel, pseudo-answer, UtilRank.

    Grades: 2 the best `threshold` percent of the ranking (rounded down, at least one), 1 on topic, 0 neither; label 1 is
    grade 2. A passage that the ranking leaves out has grade 1 wherever it falls: nobody put it among the best. The ranking is
    kept, so another `threshold` asks nothing. A pool of which RelSel keeps nothing has no positive; one passage alone needs
    no ranking.
    """

    threshold: float = 10.0
    answer_template: str = "pseudo_answer"
    answer_tokens: int = 160

    def __post_init__(self) -> None:
        super().__post_init__()
        Rule("top_percent", self.threshold)
        for template in (self.relsel_template, self.answer_template):
            self._prompt(template)
        self._prompt(self.template, "answer")

    @property
    def stages(self) -> tuple[str, ...]:
        return ("relsel", STAGE, "utilrank")

    @property
    def stage_grades(self) -> dict[str, int]:
        return {"relsel": 1, "utilrank": 2}

    def notes(self, sizes: Iterable[int]) -> str | None:
        return f"{note} where RelSel keeps all" if (note := same_thresholds(sizes, self.threshold)) else None

    def judgements(self, question: Question) -> Chain:
        pool = list(question.passages)
        if not pool:
            return []
        relevant = yield from self.relevant(question)
        if relevant is None:
            return None
        ranked = Ranking(relevant, frozenset())
        if len(relevant) > 1:
            answer = yield from self.answer(self.answer_template, self.answer_tokens, question, relevant)
            if answer is None:
                return None
            (ranked,) = yield from ask_lists([self.ranking("utilrank", self.template, question, relevant, answer=answer)])
            if ranked is None:
                return None
        best = [d for d in top_percent(ranked.order, self.threshold) if d not in ranked.left_out]
        grades = {d: int(d in relevant) + int(d in best) for d in pool}
        return ranked_judgements(in_order(ranked.order, pool), grades, {}, positive=2)
