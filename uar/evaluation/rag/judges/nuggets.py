"""Nuggets: the facts that a good answer has, written from passages, and which of them an answer supports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uar.collections.images import Image
from uar.errors import UserError
from uar.evaluation.rag.judges.judge import AnsweredQuestion, Judge, Judged
from uar.evaluation.rag.structured_replies import check_list, labels_pattern, read_labels, read_list
from uar.llm.call import Chain
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply
from uar.storage.files import digest

IMPORTANCE = ("vital", "okay")
SUPPORT = {"support": 1.0, "partial_support": 0.5, "not_support": 0.0}
SOURCES = ("positives", "shown")


@dataclass(frozen=True)
class Nuggets(Judge):
    """AutoNuggetizer (arXiv 2411.09607) in three steps: nuggets of the question from passages, `window` at a time with the
    list so far; which of them are vital and which only okay; which of them the answer supports, in part or whole. The labels
    are asked for `batch` nuggets at a time.

    NuggetsStrictVital and NuggetsStrictAll are the shares of vital nuggets and of all nuggets that the answer supports whole;
    in NuggetsVital and NuggetsAll partial support counts half. An answer of nothing supports none. Not defined where there is
    no nugget, or none that is vital.

    `source`: nuggets come from the `positives` of the qrels, the same for every run, or from the passages `shown` to the
    reader, with which runs of other passages cannot be compared. Of these the first `passages` are read, and at most `most`
    nuggets kept."""

    measures = ("NuggetsStrictVital", "NuggetsStrictAll", "NuggetsVital", "NuggetsAll")
    shows_images = True
    prompts = {
        "nuggets_template": frozenset({"query", "passages", "nuggets", "most"}),
        "importance_template": frozenset({"query", "nuggets"}),
        "template": frozenset({"query", "nuggets", "answer"}),
    }

    nuggets_template: str = "rag_nuggets"
    importance_template: str = "rag_nugget_importance"
    source: str = "positives"
    passages: int = 10
    window: int = 10
    most: int = 20
    batch: int = 10
    nugget_tokens: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in SOURCES:
            raise UserError(f"rag.judges.nuggets.source={self.source!r}; allowed: {', '.join(SOURCES)}")
        for name in ("passages", "window", "most", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"rag.judges.nuggets.{name}={getattr(self, name)}: a whole number from 1 on is needed")

    @property
    def needs_passages(self) -> bool:  # type: ignore[override]
        return self.source == "shown"

    def judged(self, question: AnsweredQuestion) -> Chain:
        nuggets = yield from self._nuggets(question)
        if nuggets is None:
            return None
        query, image = as_material(question.text), question.image
        importance = yield from self._labels("importance_template", nuggets, IMPORTANCE, image, query=query)
        if importance is None:
            return None
        support: list[str] | None = ["not_support"] * len(nuggets)
        if question.answer:
            answer = as_material(question.answer)
            support = yield from self._labels("template", nuggets, tuple(SUPPORT), image, query=query, answer=answer)
        if support is None:
            return None
        rows = list(zip(nuggets, importance, support, strict=True))
        detail = [{"nugget": n, "importance": i, "support": s} for n, i, s in rows]
        return Judged(scores([(i, s) for _, i, s in rows]), {"nuggets": detail})

    def how(self, questions: Sequence[AnsweredQuestion]) -> str:
        if self.source == "positives":
            return self.definition
        return f"{self.definition}, nuggets of passages {digest([[q.id, self._read(q)] for q in questions])[:8]}"

    def _read(self, question: AnsweredQuestion) -> list[tuple[str, str]]:
        """Ids and texts of the passages that nuggets come from."""
        shown = {d: question.passages[d] for d in question.ranked}
        return list((question.positives if self.source == "positives" else shown).items())[: self.passages]

    def _nuggets(self, question: AnsweredQuestion) -> Chain:
        """Part of a chain: the nuggets of a question; None where a reply failed. A reply that lists more than `most` has the
        first of them kept."""
        read = self._read(question)
        nuggets: list[str] = []
        for start in range(0, len(read), self.window):
            ids, texts = zip(*read[start : start + self.window], strict=True)
            values: dict[str, Any] = {"query": as_material(question.text), "passages": [self.shown(text) for text in texts]}
            values |= {"nuggets": nuggets, "most": self.most}
            tokens = self.nugget_tokens * self.most
            (reply,) = yield [self.call("nuggets_template", values, tokens, check_list, ids, image=question.image)]
            outcome, found = read_list(reply)
            if outcome != Outcome.OK:
                return None
            nuggets = [as_material(nugget) for nugget in found[: self.most]]
        return nuggets

    def _labels(
        self, option: str, nuggets: Sequence[str], allowed: Sequence[str], image: Image | None, **values: str
    ) -> Chain:
        """Part of a chain: a label of each nugget; None where a reply failed."""
        batches = [nuggets[start : start + self.batch] for start in range(0, len(nuggets), self.batch)]
        calls = []
        for batch in batches:

            def check(reply: Reply, number: int = len(batch)) -> Outcome:
                return read_labels(reply, number, allowed)[0]

            asked = {"nuggets": batch, **values}
            pattern = labels_pattern(len(batch), allowed)
            calls.append(self.call(option, asked, 16 + 12 * len(batch), check, pattern=pattern, image=image))
        replies = (yield calls) if calls else []
        read = [read_labels(reply, len(batch), allowed) for reply, batch in zip(replies, batches, strict=True)]
        return None if any(outcome != Outcome.OK for outcome, _ in read) else [label for _, labels in read for label in labels]


def scores(labelled: Sequence[tuple[str, str]]) -> dict[str, float]:
    """The measures of nuggets with (importance, support)."""
    every = [support for _, support in labelled]
    vital = [support for importance, support in labelled if importance == "vital"]
    found: dict[str, float] = {}
    for name, of in (("Vital", vital), ("All", every)):
        if of:
            found[f"NuggetsStrict{name}"] = of.count("support") / len(of)
            found[f"Nuggets{name}"] = sum(SUPPORT[support] for support in of) / len(of)
    return found
