"""The stage that writes a reference answer from the passages shown."""

from collections.abc import Sequence

from uar.llm.call import Call, Chain
from uar.llm.prompts import ChatPrompt
from uar.llm.record import Generate, Outcome
from uar.llm.replies import check_text

STAGE = "pseudo_answer"
VARIABLES = frozenset({"query", "passages", "considered"})
EXAMPLE = "It is told by the passages above, in a sentence or two of some thirty words, as a reader would sum them up."


def written_answer(prompt: ChatPrompt, request: Generate, doc_ids: Sequence[str], layout: str = "paper") -> Chain:
    """Part of a chain: the answer that the LLM writes from `doc_ids`; None where the reply failed."""
    (reply,) = yield [Call(STAGE, prompt.name, prompt.hash, tuple(doc_ids), request, check_text, layout, EXAMPLE)]
    return reply.text if check_text(reply) == Outcome.OK else None
