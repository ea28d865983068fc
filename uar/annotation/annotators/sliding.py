"""List-wise ranking by a window that slides from the end of the pool to its beginning."""

from collections.abc import Iterable
from dataclasses import dataclass

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.annotators.listwise import ListWise, ask_lists
from uar.annotation.annotators.scored import Rule, top_percent
from uar.errors import UserError
from uar.llm.call import Chain, Question


@dataclass(frozen=True)
class Sliding(ListWise):
    """The last `window` passages are ranked, then those `step` places further up, to the first (RankGPT, arXiv 2304.09542):
    the best `window` - `step` of the pool are there in the end, after 1 + ⌈(n − window) / step⌉ calls for n passages.

    Grade and label 1 are the best `threshold` percent of the ranking (rounded down, at least one), without those that the last
    ranking left out."""

    window: int = 20
    step: int = 10
    threshold: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.step < self.window:
            raise UserError(f"annotator.step={self.step}: 1 or more, and less than annotator.window={self.window}, is needed")
        for option, value in (("group", self.group), ("max_selected", self.max_selected)):
            if value is not None:
                raise UserError(
                    f"annotator.{option}={value}: nothing is selected here; give annotator.window, or {option} null"
                )
        Rule("top_percent", self.threshold)
        self._prompt(self.template)

    @property
    def stages(self) -> tuple[str, ...]:
        return ("listwise",)

    def notes(self, sizes: Iterable[int]) -> str | None:
        size = max(sizes, default=0)
        calls = 1 + max(0, -(-(size - self.window) // self.step))
        return f"{size} passages take {calls} calls, one after the other" if size > self.window else None

    def judgements(self, question: Question) -> Chain:
        order = list(question.passages)
        left_out: frozenset[str] = frozenset()
        end = len(order)
        while end > 1:
            start = max(0, end - self.window)
            listed = self.ranking("listwise", self.template, question, order[start:end])
            (ranked,) = yield from ask_lists([listed])
            if ranked is None:
                return None
            order[start:end], left_out = ranked.order, ranked.left_out
            end = end - self.step if start else 0
        best = {d for d in top_percent(order, self.threshold) if d not in left_out} if order else set()
        return ranked_judgements(order, {d: int(d in best) for d in order}, {}, positive=1)
