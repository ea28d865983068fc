"""Citations: whether the passages that a sentence cites state it, and whether each of them is needed."""

from dataclasses import dataclass
from typing import Any

from uar.evaluation.rag.cited_text import cited_sentences
from uar.evaluation.rag.judges.judge import AnsweredQuestion, Judge, Judged
from uar.evaluation.rag.structured_replies import YES_NO_PATTERN, check_yes_no, read_yes_no
from uar.llm.call import Call, Chain
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome


@dataclass(frozen=True)
class Citations(Judge):
    """Citation recall and precision of ALCE (arXiv 2305.14627), with the LLM in place of its model for entailment.

    CitationRecall: the share of sentences that the passages they cite state, together. CitationPrecision: the share of
    citations that belong to such a sentence, and are needed: one is not that does not state the sentence alone, where the
    others state it without it. A sentence without citations counts as not stated; an answer without any has precision 0. So
    does a sentence that cites a number that no passage has, with all of its citations (ALCE leaves these out of precision).
    Every citation of a sentence counts, not the first three alone. Not defined where there is no answer."""

    measures = ("CitationRecall", "CitationPrecision")
    shows_images = True
    prompts = {"template": frozenset({"query", "statement", "passages"})}
    needs_citations = True

    verdict_tokens: int = 8

    def judged(self, question: AnsweredQuestion) -> Chain:
        ids = list(question.passages)
        sentences = cited_sentences(question.answer, len(ids))
        if not sentences:
            return Judged({}, {})
        rows: list[dict[str, Any]] = []
        for sentence, numbers in sentences:
            needed: list[bool] | None = None
            if numbers and all(1 <= n <= len(ids) for n in numbers):
                cited = [ids[n - 1] for n in numbers]
                stated = yield from self._state(question, sentence, [cited])
                needed = (yield from self._needed(question, sentence, cited)) if stated == [True] else []
                if stated is None or needed is None:
                    return None
            rows.append({"sentence": sentence, "cites": numbers, "stated": bool(needed), "needed": needed or []})
        citations = sum(len(row["cites"]) for row in rows)
        recall = sum(row["stated"] for row in rows) / len(rows)
        precision = sum(sum(row["needed"]) for row in rows) / citations if citations else 0.0
        return Judged({"CitationRecall": recall, "CitationPrecision": precision}, {"sentences": rows})

    def _needed(self, question: AnsweredQuestion, sentence: str, cited: list[str]) -> Chain:
        """Part of a chain: for each citation of a sentence that all of them state, whether it is needed; None where a reply
        failed."""
        if len(cited) == 1:
            return [True]
        alone = yield from self._state(question, sentence, [[d] for d in cited])
        if alone is None:
            return None
        doubtful = [d for d, stated in zip(cited, alone, strict=True) if not stated]
        without = yield from self._state(question, sentence, [[other for other in cited if other != d] for d in doubtful])
        if without is None:
            return None
        spare = {d for d, stated in zip(doubtful, without, strict=True) if stated}
        return [d not in spare for d in cited]

    def _state(self, question: AnsweredQuestion, sentence: str, groups: list[list[str]]) -> Chain:
        """Part of a chain: whether each group of passages states a sentence, asked together; None where a reply failed."""
        replies = (yield [self._call(question, sentence, group) for group in groups]) if groups else []
        read = [read_yes_no(reply) for reply in replies]
        return None if any(outcome != Outcome.OK for outcome, _ in read) else [yes for _, yes in read]

    def _call(self, question: AnsweredQuestion, sentence: str, group: list[str]) -> Call:
        texts = [self.shown(question.passages[d]) for d in group]
        values = {"query": as_material(question.text), "statement": as_material(sentence), "passages": texts}
        return self.call("template", values, self.verdict_tokens, check_yes_no, group, YES_NO_PATTERN, question.image)
