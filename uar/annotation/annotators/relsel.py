"""RelSel: which passages are on the question's topic, one call a pool or a group of it."""

from dataclasses import dataclass

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.annotators.listwise import ListWise, in_order
from uar.llm.call import Chain, Question


@dataclass(frozen=True)
class RelSel(ListWise):
    """Relevance selection of arXiv 2504.05220 alone. Grade and label 1 are the selected passages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._prompt(self.template)

    @property
    def stages(self) -> tuple[str, ...]:
        return ("relsel",)

    def judgements(self, question: Question) -> Chain:
        pool = list(question.passages)
        if not pool:
            return []
        chosen = yield from self.relevant(question, self.template)
        if chosen is None:
            return None
        return ranked_judgements(in_order(chosen, pool), {d: int(d in chosen) for d in pool}, {}, positive=1)
