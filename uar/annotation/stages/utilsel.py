"""UtilSel: relevance selection, a pseudo-answer from what it kept, utility selection beside that answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from uar.annotation.parsing import parse_selection
from uar.annotation.prompts import load_chat
from uar.annotation.record import Generate, Outcome, Reply
from uar.annotation.stages.annotator import Annotator, Call, Chain, Question, ranked_judgements
from uar.annotation.stages.pseudo_answer import STAGE, pseudo_answer


@dataclass(frozen=True)
class UtilSel(Annotator):
    """List-wise chain of arXiv 2504.05220: RelSel, pseudo-answer, UtilSel.

    Grades: 2 useful, 1 on topic only, 0 neither; label 1 is grade 2. A pool of which RelSel keeps nothing has no
    positive, and nothing more is asked.
    """

    relsel_template: str = "relsel"
    answer_template: str = "pseudo_answer"
    selection_tokens: int = 160
    answer_tokens: int = 160

    @property
    def stages(self) -> tuple[str, ...]:
        return ("relsel", STAGE, "utilsel")

    @property
    def first_prompt_hash(self) -> str:
        return load_chat(self.relsel_template, frozenset({"query", "passages"})).hash

    def chain(self, question: Question) -> Chain:
        pool = list(question.passages)
        if not pool:
            return []
        relevant = yield from self._select("relsel", self.relsel_template, question, pool)
        if relevant is None:
            return None
        useful: list[str] = []
        if relevant:
            answer = yield from pseudo_answer(self, self.answer_template, self.answer_tokens, question, relevant)
            if answer is None:
                return None
            chosen = yield from self._select("utilsel", self.template, question, relevant, answer=answer)
            if chosen is None:
                return None
            useful = chosen
        grades = {d: int(d in relevant) + int(d in useful) for d in pool}
        order = useful + [d for d in relevant if d not in useful] + [d for d in pool if d not in relevant]
        return ranked_judgements(order, grades, {}, positive=2)

    def _select(self, stage: str, template: str, question: Question, pool: Sequence[str], **values: str) -> Chain:
        """The passage ids that the LLM selects from `pool`, in its order; None where the reply failed."""
        prompt = load_chat(template, frozenset({"query", "passages", *values}))
        passages = [self.shown(question.passages[d]) for d in pool]
        request = Generate(prompt.render(query=question.text, passages=passages, **values), self.selection_tokens)

        def check(reply: Reply) -> Outcome:
            return parse_selection(reply, len(pool))[0]

        (reply,) = yield [Call(stage, prompt.name, prompt.hash, tuple(pool), request, check)]
        outcome, chosen = parse_selection(reply, len(pool))
        return [pool[i] for i in chosen] if outcome == Outcome.OK else None
