"""Answers from the top passages of a run, kept in the annotation store like any other call."""

from collections.abc import Sequence
from dataclasses import dataclass

from uar.annotation.chains import Chains
from uar.annotation.engines import LLM, Engine
from uar.annotation.neutral import as_material
from uar.annotation.parsing import check_answer
from uar.annotation.prompts import load_chat
from uar.annotation.record import Generate, Outcome
from uar.annotation.replay import question_of
from uar.annotation.stages import Call, Question
from uar.annotation.stages.annotator import Chain, Prompted
from uar.annotation.store import Store
from uar.collections import Collection
from uar.evaluation.runs import Run


@dataclass(frozen=True)
class Reader(Prompted):
    """One call a question: the passages in rank order, then the question. The chain's value is the answer."""

    answer_tokens: int = 24

    @property
    def stages(self) -> tuple[str, ...]:
        return ("rag",)

    @property
    def first_prompt_hash(self) -> str:
        return load_chat(self.template, frozenset({"query", "passages"})).hash

    def chain(self, question: Question) -> Chain:
        prompt = load_chat(self.template, frozenset({"query", "passages"}))
        passages = [self.shown(text) for text in question.passages.values()]
        request = Generate(prompt.render(query=as_material(question.text), passages=passages), self.answer_tokens)
        (reply,) = yield [Call("rag", prompt.name, prompt.hash, tuple(question.passages), request, check_answer)]
        return first_line(reply.text) if check_answer(reply) == Outcome.OK else ""


def first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""


def generate_answers(
    collection: Collection,
    run: Run,
    query_ids: Sequence[str],
    top_k: int,
    reader: Reader,
    engine: Engine,
    store: Store,
    model: str,
) -> dict[str, str]:
    """The generated answer a query; empty where the generator returned nothing."""
    questions = (question_of(collection, q, [d for d, _ in run.get(q, ())[:top_k]]) for q in query_ids)
    chains = Chains(reader, store, collection.slug, [LLM(model, engine)], max_failure_rate=1.0)
    answers = dict.fromkeys(query_ids, "")
    for query_id, answer in chains.run(questions):
        answers[query_id] = str(answer)
    return answers
