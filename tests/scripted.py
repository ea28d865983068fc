"""An engine in this process whose replies a test writes, and questions to ask it."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uar.annotation.annotation import Asked
from uar.annotation.annotators import Annotator, Judgement
from uar.annotation.selection import Annotations
from uar.collections import Collection
from uar.llm.call import Question
from uar.llm.chains import Chains
from uar.llm.models import LLM, Model
from uar.llm.record import Messages, Record, Reply, Request
from uar.llm.store.store import Store

POOL = {
    "d1": "Bees make honey from nectar.",
    "d2": "Bees live in hives.",
    "d3": "A violin has four strings.",
    "d4": "Honey keeps for years.",
}
BEES = Question("q1", "what do bees make", POOL, ("honey",))
Answer = Callable[[Request], Reply | str]


class Scripted(Model):
    """Answers with a function of the request, the latest request first."""

    name = "scripted"

    def __init__(self, answer: Answer, window: int = 4) -> None:
        self.answer, self.window = answer, window
        self.asked: list[Request] = []
        self.waiting: list[tuple[int, Request]] = []
        self.most = 0

    def submit(self, ticket: int, request: Request) -> None:
        self.asked.append(request)
        self.waiting.append((ticket, request))
        self.most = max(self.most, len(self.waiting))

    def step(self) -> list[tuple[int, Reply]]:
        ticket, request = self.waiting.pop()
        reply = self.answer(request)
        return [(ticket, reply if isinstance(reply, Reply) else Reply(reply, tokens_in=10, tokens_out=2))]

    @property
    def stages(self) -> list[str]:
        """Of the requests, in the order asked."""
        return [stage_of(request) for request in self.asked]


def stage_of(request: Request) -> str:
    last = request.messages[-1][1]
    if "[i] > [j]" in last:
        return "utilrank"
    if "My selection:[[i]" not in last:
        return "pseudo_answer"
    return "utilsel" if "Reference answer:" in last else "relsel"


def replies(**by_stage: str | Reply) -> Answer:
    return lambda request: by_stage[stage_of(request)]


def reader(utility: Mapping[str, float]) -> Answer:
    """Reads the passages: by its text, one of a utility above 0 is on the topic, from 1 up it is useful; its answer is what
    the passages say."""

    def answer(request: Request) -> str:
        shown = shown_passages(request.messages)
        *_, task = request.messages[-1][1].split("Question: ")
        told = re.search(r"(?:only the passages|what the passages) ((?:\[\d+\](?:, )?)+)", task)
        numbers = [int(n) for n in re.findall(r"\d+", told.group(1))] if told else list(shown)
        worth = {n: utility[shown[n]] for n in numbers}
        best_first = sorted(numbers, key=lambda n: -worth[n])
        stage = stage_of(request)
        if stage == "pseudo_answer":
            return " ".join(shown[n] for n in best_first)
        if stage == "utilrank":
            return " > ".join(f"[{n}]" for n in best_first)
        least = 1 if stage == "utilsel" else 1e-9
        return f"My selection:[{','.join(f'[{n}]' for n in best_first if worth[n] >= least)}]"

    return answer


def nat_by_passage(values: dict[str, float]) -> Callable[[Request], Reply]:
    """Log-likelihood of two target tokens, in nat a token, by the passage that is shown."""
    texts = {POOL[d]: value for d, value in values.items()}
    return lambda r: Reply.of_score(2 * next(v for text, v in texts.items() if text in r.prefix), 2)


def shown_passages(messages: Messages) -> dict[int, str]:
    """Passages by the number that a line of a user's turn begins with."""
    lines = [line for role, text in messages if role == "user" for line in text.splitlines()]
    return {int(m.group(1)): m.group(2) for m in (re.match(r"\[(\d+)\] (.*)", line) for line in lines) if m}


def run(
    folder: Path,
    annotator: Annotator,
    engine: Model | None | Sequence[Model | None],
    questions: Sequence[Question] = (BEES,),
    max_failure_rate: float = 0.05,
    collection: str = "toy.train",
    retry: Sequence[str] = (),
) -> tuple[dict[str, list[Judgement]], Chains]:
    """Judgements of an annotator of one model or several, which are called scripted@1, scripted@2, ..."""
    store = Store(folder)
    engines = [engine] if engine is None or isinstance(engine, Model) else engine
    llms = [LLM(f"scripted@{n}", one) for n, one in enumerate(engines, start=1)]
    chains = Chains(annotator, store, collection, llms, max_failure_rate, retry=retry)
    try:
        return dict(chains.run(questions)), chains
    finally:
        store.close()


def replayed(
    store: Path, annotator: Annotator, models: Sequence[str], collection: Collection, pool: Sequence[str] = (), seed: int = 0
) -> dict[str, list[Judgement]]:
    """What training reads of the annotation of all questions of a collection with one pool, or the annotator's own pools."""
    annotations, asked = Annotations(store), Asked(annotator, models, collection)
    if pool:
        annotations.begin(asked, {"depth": len(pool)}, dict.fromkeys(collection.queries, pool), {})
    annotation = annotations.choose(asked, "latest")
    return annotator.finish(collection, annotation.concluded().judgements, seed)[0]


def kept(folder: Path, *stages: str, model: str = "scripted@1") -> list[Record]:
    return list(Store(folder).records("toy.train", stages, model))


def many(number: int) -> list[Question]:
    return [Question(f"m{n}", f"question {n}", POOL) for n in range(number)]


def graded(judged: dict[str, list[Judgement]], query_id: str = "q1") -> list[tuple[str, int, int]]:
    """(passage, label, grade) in rank order."""
    assert [j.rank for j in judged[query_id]] == list(range(1, len(judged[query_id]) + 1))
    return [(j.doc_id, j.label, j.grade) for j in judged[query_id]]
