"""Which of the retrieved passages are kept: those that together support an answer best, selected by the LLM as a set."""

import logging
from dataclasses import dataclass

from uar.annotation.parsing import parse_selection, selection_pattern
from uar.errors import UserError
from uar.evaluation.rag.reader import Asking
from uar.evaluation.rag.shown_passages import show
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import OnePrompt
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply
from uar.storage.runs import Run

log = logging.getLogger(__name__)
STAGE = "rag_select"


@dataclass(frozen=True)
class Candidates(Question):
    """`kept`: ids of `passages` that earlier selections left; the others are new, best first."""

    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selector(OnePrompt):
    """Progressive selection of LLatrieval (arXiv 2311.07838): a window shows the passages that are kept and new ones, up to
    `window` together, and the reply names those that are kept from then on, at most `keep`. The windows of a question follow
    each other until each new passage was shown, once. The chain's value is the ids that are kept, the most helpful first. A
    reply that cannot be read, or names none, leaves what was kept."""

    variables = frozenset({"query", "passages", "most"})
    shows_images = True

    keep: int = 5
    window: int = 20
    constrain: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.window > self.keep:
            raise UserError(f"rag.window={self.window}: more than rag.keep={self.keep} is needed, or no new passage is shown")

    @property
    def stages(self) -> tuple[str, ...]:
        return (STAGE,)

    def chain(self, question: Question) -> Chain:
        kept = list(question.kept) if isinstance(question, Candidates) else []
        new = [d for d in question.passages if d not in kept]
        while new:
            room = self.window - len(kept)
            shown, new = [*kept, *new[:room]], new[room:]
            (reply,) = yield [self._call(question, shown)]
            outcome, named = parse_selection(reply, range(1, len(shown) + 1))
            if outcome == Outcome.OK and named:
                kept = [shown[number - 1] for number in named[: self.keep]]
        return kept

    def _call(self, question: Question, shown: list[str]) -> Call:
        numbers = range(1, len(shown) + 1)
        texts = [self.shown(question.passages[d]) for d in shown]
        query = as_material(question.text)
        messages = self.prompt.render(image=question.image, query=query, passages=texts, most=self.keep)
        pattern = selection_pattern(numbers, self.keep) if self.constrain and not self.reasoning else None
        request = self.generate(messages, 16 + 6 * len(shown), pattern)

        def check(reply: Reply) -> Outcome:
            return parse_selection(reply, numbers)[0]

        def notes(reply: Reply) -> dict[str, int]:
            return {"longer": int(len(parse_selection(reply, numbers)[1]) > self.keep)}

        return Call(STAGE, self.prompt.name, self.prompt.hash, tuple(shown), request, check, notes=notes)


def selected(ask: Asking, selector: Selector, kept: Run, found: Run, depth: int) -> Run:
    """A run of the passages that are kept of each question of `found`, out of those that were (`kept`) and its first `depth`
    new ones. Where the LLM keeps none at all, the best of the ranking are."""
    collection = ask.collection
    old = {q: [d for d, _ in kept.get(q, ())] for q in found}
    ids = {q: [*old[q], *(d for d, _ in hits[:depth] if d not in set(old[q]))] for q, hits in found.items()}
    texts = show(collection, ids, "rank", str, {})
    queries = collection.queries
    questions = [Candidates(q, queries[q].text, texts[q], image=queries[q].image, kept=tuple(old[q])) for q in found]
    before, failed = ask.progress.stage(STAGE), ask.failed(selector.stages)
    calls, longer = sum(before.outcomes.values()), before.notes["longer"]
    chosen = ask.of(selector, questions)
    after = ask.progress.stage(STAGE)
    lost = [q for q in found if ids[q] and not chosen.get(q)]
    log.info(
        "%s: the LLM selects from %d passages of %d questions in %d windows (%d replies could not be read, %d named more than "
        "%d, whose first count; %d questions with none selected keep the best of the ranking)",
        collection.slug, sum(len(ids[q]) - len(old[q]) for q in found), len(found), sum(after.outcomes.values()) - calls,
        ask.failed(selector.stages) - failed, after.notes["longer"] - longer, selector.keep, len(lost),
    )  # fmt: skip
    return {q: _ranked(chosen.get(q) or ids[q][: selector.keep]) for q in found}


def _ranked(ids: list[str]) -> list[tuple[str, float]]:
    return [(d, float(len(ids) - at)) for at, d in enumerate(ids)]
