"""Calls that show some passages under letters and ask for the one that helps most."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from uar.annotation.annotators.guided import GuidedPrompt
from uar.annotation.doubts import COMPARES, denies
from uar.llm.call import Call, Question
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Choose, Generate, Outcome, Reply
from uar.llm.replies import check_choices, unread

WIDEST = 20  # passages of a call: servers tell the 20 likeliest tokens
PICK_TOKENS = 16
NAMED, ALONE = re.compile(r"\[\s*([A-Z])\s*\]"), re.compile(r"\W*([A-Z])\W*")


@dataclass(frozen=True)
class Picking(GuidedPrompt):
    """The probability of each letter is read. A model that reasons has the letter read from its text, and gives none."""

    variables = frozenset({"query", "passages"})
    shows_images = True

    @property
    def can_sample(self) -> bool:  # type: ignore[override]
        return bool(self.reasoning)

    def pick(self, question: Question, window: Sequence[str]) -> Call:
        """The call that shows these passages, in this order."""
        letters = ascii_uppercase[: len(window)]
        texts = [NAMED.sub(r"(\1)", self.shown(question.passages[d])) for d in window]  # `[B]` in a text is text
        passages = list(zip(letters, texts, strict=True))
        query = NAMED.sub(r"(\1)", as_material(question.text))
        messages = self.prompt.render(image=question.image, query=query, passages=passages)
        request: Generate | Choose = (
            self.generate(messages, PICK_TOKENS) if self.reasoning else Choose(messages, tuple(letters), self.reasoning)
        )

        example = letters[0] if self.reasoning else json.dumps(dict.fromkeys(letters, -3.0))

        def check(reply: Reply) -> Outcome:
            return self.said(reply, len(window))[0]

        return Call(self.stages[0], self.prompt.name, self.prompt.hash, tuple(window), request, check, example=example)

    def said(self, reply: Reply, size: int) -> tuple[Outcome, list[float]]:
        """What a reply says of each of `size` passages: log-likelihoods, or of a text 0 for its pick and minus infinity. A
        text picks none where it names several, compares or denies."""
        letters = ascii_uppercase[:size]
        if not self.reasoning:
            outcome = check_choices(reply)
            said: Any = reply.choice_logprobs() if outcome == Outcome.OK else {}
            return outcome, [said[letter] for letter in letters] if said else []
        if reply.outcome != Outcome.OK:
            return reply.outcome, []
        alone = ALONE.fullmatch(reply.text)
        named = {alone[1]} if alone else set(NAMED.findall(reply.text))
        if len(named) != 1 or (not alone and (denies(reply.text) or COMPARES.search(reply.text))):
            return unread(reply.text), []
        (pick,) = named
        return (Outcome.OK, [0.0 if x == pick else -1e9 for x in letters]) if pick in letters else (Outcome.OUT_OF_RANGE, [])
