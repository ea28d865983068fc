"""The stage that writes a reference answer from the passages shown."""

from collections.abc import Sequence

from uar.annotation.parsing import check_text
from uar.annotation.prompts import ChatPrompt, load_chat
from uar.annotation.record import Generate, Outcome
from uar.annotation.stages.annotator import Annotator, Call, Chain, Question

STAGE = "pseudo_answer"


def answer_prompt(template: str) -> ChatPrompt:
    return load_chat(template, frozenset({"query", "passages"}))


def pseudo_answer(annotator: Annotator, template: str, tokens: int, question: Question, doc_ids: Sequence[str]) -> Chain:
    """Part of a chain: the answer that the LLM writes from `doc_ids`; None where the reply failed."""
    prompt = answer_prompt(template)
    passages = [annotator.shown(question.passages[d]) for d in doc_ids]
    request = Generate(prompt.render(query=question.text, passages=passages), tokens)
    (reply,) = yield [Call(STAGE, prompt.name, prompt.hash, tuple(doc_ids), request, check_text)]
    return reply.output.strip() if check_text(reply) == Outcome.OK else None
