"""What the list-wise annotators share: one pool, shown in one of two layouts to stages that select, answer and rank."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from uar.annotation.annotators.guided import Guided
from uar.annotation.annotators.pseudo_answer import VARIABLES, written_answer
from uar.annotation.parsing import parse_ranking, parse_selection, ranking_pattern, selection_pattern
from uar.errors import UserError
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import one_of
from uar.llm.prompts import ChatPrompt, load_chat
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Messages, Outcome, Reply

EXAMPLE_SHARE = 0.4  # of a list that dry runs take as selected

Chosen = list[str] | None  # passage ids, or None where the reply failed


class Ranking(NamedTuple):
    """Passage ids, best first, and those of them that the reply did not name."""

    order: list[str]
    left_out: frozenset[str]


@dataclass(frozen=True)
class Listed:
    """A call whose reply names passages, and how they are read from it; None where the reply failed."""

    call: Call
    read: Callable[[Reply], Any]


@dataclass(frozen=True)
class ListWise(Guided):
    """`layout`: `paper` (role, question, then the passages of the stage; arXiv 2504.05220) or `shared_prefix` (question and
    the whole pool first, from `opening_template`, then the task, so that a prefix cache reads the pool once a question).
    `acknowledge`: whether the assistant answers each passage; null: in the layout of the paper, which has it so, alone, since
    it takes a tenth of the prompt and more. `max_selected`: at most so many passages a selection.
    `gold_answer`: the reference answer is the gold one where a question has one (several are joined by semicolons), as in the
    hybrid test of the paper; else the LLM writes it.
    `group`: RelSel is asked about so many passages a call, side by side, in the order of the pool; null: about all in one.
    `constrain`: hold replies to their format where the engine can (not while a model reasons). `selection_tokens`: of a
    list; null for what its length needs."""

    shows_images = True

    relsel_template: str = field(default="relsel", kw_only=True)
    opening_template: str = field(default="passages", kw_only=True)
    layout: str = field(default="paper", kw_only=True)
    acknowledge: bool | None = field(default=None, kw_only=True)
    max_selected: int | None = field(default=None, kw_only=True)
    gold_answer: bool = field(default=False, kw_only=True)
    constrain: bool = field(default=True, kw_only=True)
    selection_tokens: int | None = field(default=None, kw_only=True)
    group: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("layout", self.layout, ("paper", "shared_prefix"))
        if self.max_selected is not None and self.max_selected < 1:
            raise UserError(f"annotator.max_selected={self.max_selected}: at least 1 is needed, or null for no limit")
        if self.group is not None and self.group < 1:
            raise UserError(f"annotator.group={self.group}: at least 1 passage a call is needed, or null for all in one")
        if self.group is not None and self.layout == "shared_prefix":
            raise UserError(f"annotator.group={self.group}: layout=shared_prefix shows the whole pool; use layout=paper")

    def relevant(self, question: Question, template: str = "") -> Chain:
        """Part of a chain: the passage ids that RelSel keeps, asked by `relsel_template` or by `template`; None where a reply
        failed."""
        pool, asked = list(question.passages), template or self.relsel_template
        size = self.group or len(pool)
        groups = [pool[start : start + size] for start in range(0, len(pool), size)]
        chosen = yield from ask_lists([self.selection("relsel", asked, question, group) for group in groups])
        return None if None in chosen else [d for of_group in chosen for d in of_group]

    def selection(self, stage: str, template: str, question: Question, among: Sequence[str], **values: str) -> Listed:
        """The call that selects from `among`; of more than `max_selected` the first are taken."""
        numbers, messages, prompt = self._show(template, question, among, **values)
        allowed, most = list(numbers), self.max_selected
        share = max(1, round(EXAMPLE_SHARE * len(numbers)))
        some = allowed[: min(share, most or share)]
        example = f"My selection:[{','.join(f'[{n}]' for n in some)}]"

        def check(reply: Reply) -> Outcome:
            return parse_selection(reply, allowed)[0]

        def read(reply: Reply) -> Chosen:
            outcome, found = parse_selection(reply, allowed)
            return [numbers[n] for n in found][:most] if outcome == Outcome.OK else None

        def notes(reply: Reply) -> dict[str, int]:
            return {"selections_cut": 1} if most and len(parse_selection(reply, allowed)[1]) > most else {}

        pattern = selection_pattern(allowed, most)
        call = self._call(stage, prompt, messages, numbers, pattern, example, check)
        return Listed(replace(call, notes=notes), read)

    def ranking(self, stage: str, template: str, question: Question, among: Sequence[str], **values: str) -> Listed:
        """The call that ranks all of `among`; what is read is a `Ranking`."""
        numbers, messages, prompt = self._show(template, question, among, **values)
        allowed = list(numbers)
        example = " > ".join(f"[{n}]" for n in numbers)

        def check(reply: Reply) -> Outcome:
            return parse_ranking(reply, allowed)[0]

        def read(reply: Reply) -> Ranking | None:
            outcome, order, left_out = parse_ranking(reply, allowed)
            if outcome != Outcome.OK:
                return None
            return Ranking([numbers[n] for n in order], frozenset(numbers[n] for n in left_out))

        def notes(reply: Reply) -> dict[str, int]:
            left_out = parse_ranking(reply, allowed)[2]
            return {"partial_rankings": 1, "passages_appended": len(left_out)} if left_out else {}

        call = self._call(stage, prompt, messages, numbers, ranking_pattern(allowed), example, check)
        return Listed(replace(call, notes=notes), read)

    def answer(self, template: str, tokens: int, question: Question, among: Sequence[str]) -> Chain:
        """Part of a chain: the gold answer where it is wanted and there is one, else that which the LLM writes from `among`;
        None where the reply failed."""
        if self.gold_answer and question.answers:
            return "; ".join(question.answers)
        numbers, messages, prompt = self._show(template, question, among)
        return (yield from written_answer(prompt, self.generate(messages, tokens), list(numbers.values()), self.layout))

    @cached_property
    def _prompts(self) -> dict[tuple[str, ...], ChatPrompt]:
        return {}

    def _prompt(self, template: str, *more: str) -> ChatPrompt:
        """`more`: names of what the stage supplies besides. Read once, so that a run goes on with what it began with."""
        if (template, *more) not in self._prompts:
            prefix = self.opening_template if self.layout == "shared_prefix" else None
            prompt = load_chat(template, VARIABLES | set(more), prefix)
            self._prompts[template, *more] = prompt.with_guideline(self.guidance)
        return self._prompts[template, *more]

    def _show(
        self, template: str, question: Question, among: Sequence[str], **values: str
    ) -> tuple[dict[int, str], Messages, ChatPrompt]:
        """Passage ids by the number they are shown under, the messages, and the prompt they come from."""
        prompt = self._prompt(template, *values)
        pool = list(question.passages) if self.layout == "shared_prefix" else list(among)
        wanted = set(among)
        numbers = {n: d for n, d in enumerate(pool, start=1) if d in wanted}
        messages = prompt.render(
            self.layout == "paper" if self.acknowledge is None else self.acknowledge,
            image=question.image,
            query=as_material(question.text),
            passages=[self.shown(question.passages[d]) for d in pool],
            considered=list(numbers),
            **{name: as_material(text) for name, text in values.items()},
        )
        return numbers, messages, prompt

    def _call(
        self,
        stage: str,
        prompt: ChatPrompt,
        messages: Messages,
        numbers: Mapping[int, str],
        pattern: str,
        example: str,
        check: Callable[[Reply], Outcome],
    ) -> Call:
        tokens = self.selection_tokens or 16 + 6 * len(numbers)
        request = self.generate(messages, tokens, pattern if self.constrain and not self.reasoning else None)
        return Call(stage, prompt.name, prompt.hash, tuple(numbers.values()), request, check, self.layout, example)


def ask_lists(lists: Sequence[Listed]) -> Any:
    """Part of a chain: what several calls, asked together, named."""
    replies = yield [one.call for one in lists]
    return [one.read(reply) for one, reply in zip(lists, replies, strict=True)]


def in_order(chosen: Sequence[str], pool: Sequence[str]) -> list[str]:
    """`chosen` first, then the others of `pool`."""
    first = set(chosen)
    return [*chosen, *(d for d in pool if d not in first)]
