"""Queries that the LLM writes: before retrieval, and again where the passages do not support an answer."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uar.evaluation.rag.reader import Asking
from uar.evaluation.rag.shown_passages import Passages
from uar.evaluation.rag.structured_replies import check_yes_no, read_yes_no
from uar.expansion.query_texts import LABEL, QueryWriter, written_query
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import OnePrompt
from uar.llm.prompts import load_chat
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_text, first_line
from uar.storage.runs import Run

log = logging.getLogger(__name__)
Search = Callable[[Mapping[str, str]], Run]  # text to search with a query -> its run
SUPPORTED = re.compile(r"^\W*(?:supported|yes)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Verifier(OnePrompt):
    """One call a question with its passages; the chain's value is a better query, or empty where the passages support an
    answer, or where the reply says neither."""

    variables = frozenset({"query", "passages"})
    shows_images = True

    query_tokens: int = 48

    @property
    def stages(self) -> tuple[str, ...]:
        return ("rag_verify",)

    def chain(self, question: Question) -> Chain:
        prompt = self.prompt
        passages = [self.shown(text) for text in question.passages.values()]
        messages = prompt.render(image=question.image, query=as_material(question.text), passages=passages)
        request = self.generate(messages, self.query_tokens)
        (reply,) = yield [Call("rag_verify", prompt.name, prompt.hash, tuple(question.passages), request, check_verdict)]
        if check_verdict(reply) != Outcome.OK or SUPPORTED.match(first_line(reply.text)):
            return ""
        return written_query(reply.text)


@dataclass(frozen=True)
class Missing(QueryWriter):
    """A question with its passages: a call that says whether they are enough for an answer, and where not a second one that
    writes what is missing, as a question or a passage to search with (LLatrieval, arXiv 2311.07838). The chain's value is this
    text, or empty where the passages are enough, or where a reply failed."""

    variables = frozenset({"query", "passages"})

    stage: str = "rag_missing"
    enough_template: str = "rag_enough"
    verdict_tokens: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        load_chat(self.enough_template, self.variables)

    @property
    def stages(self) -> tuple[str, ...]:
        return ("rag_verify", self.stage)

    def chain(self, question: Question) -> Chain:
        prompt = load_chat(self.enough_template, self.variables)
        passages = [self.shown(text) for text in question.passages.values()]
        messages = prompt.render(image=question.image, query=as_material(question.text), passages=passages)
        request = self.generate(messages, self.verdict_tokens)
        (reply,) = yield [Call("rag_verify", prompt.name, prompt.hash, tuple(question.passages), request, check_yes_no)]
        outcome, enough = read_yes_no(reply)
        if outcome != Outcome.OK or enough:
            return ""
        return (yield from super().chain(question)) or ""


def check_verdict(reply: Reply) -> Outcome:
    """Good are `supported` and `search: QUERY`."""
    outcome = check_text(reply)
    line = first_line(reply.text)
    good = bool(SUPPORTED.match(line)) or bool(LABEL.match(line) and written_query(line))
    return Outcome.UNPARSABLE if outcome == Outcome.OK and not good else outcome


def rewritten(ask: Asking, rewriter: QueryWriter, texts: Mapping[str, str]) -> dict[str, str]:
    """Texts to search with instead of `texts`; a question for which the LLM wrote nothing keeps its own."""
    found = {q: query or texts[q] for q, query in ask(rewriter, {q: {} for q in texts}).items()}
    changed = sum(found[q] != text for q, text in texts.items())
    line = "%s: %d of %d queries are searched as the LLM rewrote them (%d replies could not be used)"
    log.info(line, ask.collection.slug, changed, len(texts), ask.failed(rewriter.stages))
    return found


def verified(
    ask: Asking,
    verifier: Verifier | Missing,
    rounds: int,
    show: Callable[[Run, list[str]], dict[str, Passages]],
    search: Search,
    run: Run,
    texts: Mapping[str, str],
    select: Callable[[Run, Run], Run],
) -> tuple[Run, dict[str, str]]:
    """(run, text it was searched with a query) after up to `rounds` times asking whether the passages support an answer, and
    retrieving with the LLM's better query where they do not. `select`: what is kept of the passages that were there and those
    that were found."""
    texts, run = dict(texts), dict(run)
    asked = list(texts)
    for number in range(1, rounds + 1):
        before = ask.failed(verifier.stages)
        better = {q: query for q, query in ask(verifier, show(run, asked)).items() if query and query != texts[q]}
        line = "%s: round %d: the passages of %d of %d questions are said not to support an answer and retrieved again"
        unread = ask.failed(verifier.stages) - before
        log.info(f"{line} (%d replies could not be read)", ask.collection.slug, number, len(better), len(asked), unread)
        if not better:
            break
        found = search(better)
        run.update(select({q: run.get(q, []) for q in better}, found))
        texts.update(better)
        asked = list(better)
    return run, texts
