"""Dry runs: what a run would ask and cost, from the prompts of a few questions, with nothing asked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os.path import commonprefix
from typing import Any

from uar.annotation.engines.tokens import chat_ids, text_ids
from uar.annotation.ledger import Prices
from uar.annotation.record import Choose, Generate, Reply, Request, Score
from uar.annotation.stages import Annotator, Question
from uar.errors import UserError
from uar.models import locate

CHARACTERS_A_TOKEN = 4.0
SAMPLE = 100  # questions
Prompt = Sequence[int] | str  # token ids, or text where there is no tokenizer
Asked = tuple[str, Request, str]  # stage, request, example of a reply
Rendered = tuple[Question, list[Asked]]


def _prompts_of(annotator: Annotator, question: Question) -> Iterator[Asked]:
    """The calls of a question, if replies were like the examples."""
    chain = annotator.chain(question)
    try:
        calls = next(chain)
        while True:
            yield from ((call.stage, call.request, call.example) for call in calls)
            calls = chain.send([Reply(call.example) for call in calls])
    except StopIteration:
        return


def render(annotator: Annotator, sample: Iterable[Question]) -> list[Rendered]:
    """The questions with what would be asked of each."""
    return [(question, list(_prompts_of(annotator, question))) for question in sample]


def estimate(
    sample: Sequence[Rendered],
    queries: int,
    tokenizer: "TokenCounter",
    prices: Prices,
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """Calls, tokens, seconds and cost of `queries` questions like those of `sample`. Replies of later stages are made up: a
    selection keeps two passages of five. `tokens_cached` is what a prefix cache spares within a question."""
    stages: dict[str, Counter[str]] = {}
    for _, asked in sample:
        before: list[Prompt] = []
        for stage, request, example in asked:
            prompt = tokenizer.prompt(request)
            counts = stages.setdefault(stage, Counter())
            counts["calls"] += 1
            counts["tokens_in"] += tokenizer.count(prompt)
            counts["tokens_out"] += _written(request, tokenizer, example)
            counts["tokens_cached"] += max((tokenizer.count(_shared(prompt, other)) for other in before), default=0)
            before.append(prompt)
    scale = queries / len(sample)
    rows = {stage: {name: round(scale * n) for name, n in counts.items()} for stage, counts in stages.items()}
    total = Counter[str]()
    for row in rows.values():
        total.update(row)
    computed = total["tokens_in"] - total["tokens_cached"] + total["tokens_out"]
    seconds = computed / tokens_per_second if tokens_per_second else None
    cost = prices.cost(total, seconds)
    pairs = round(scale * sum(len(question.passages) for question, _ in sample))
    return {
        "queries": queries,
        "queries_rendered": len(sample),
        "pairs": pairs,
        "tokens_counted_by": tokenizer.name,
        **{name: total[name] for name in ("calls", "tokens_in", "tokens_cached", "tokens_out")},
        "tokens_per_second": tokens_per_second,
        "seconds": None if seconds is None else round(seconds, 1),
        "gpu_hours": None if seconds is None else round(prices.gpu_hours(seconds), 4),
        "currency": prices.currency,
        "cost": None if cost is None else round(cost, 4),
        "human_cost": prices.people(pairs),
        "stages": rows,
    }


def _shared(one: Prompt, other: Prompt) -> Prompt:
    return commonprefix([one, other])  # type: ignore[list-item]


def _written(request: Request, tokenizer: "TokenCounter", example: str) -> int:
    if isinstance(request, Generate):
        return min(request.max_tokens, tokenizer.count_text(example)) + request.reasoning_tokens
    return 1 if isinstance(request, Choose) else 0


class TokenCounter:
    """Counts tokens with the model's tokenizer where it is at hand, else by characters."""

    def __init__(self, model: str) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(locate(model))
            self.name = "tokenizer"
        except (OSError, ValueError, UserError):
            self._tokenizer = None
            self.name = f"characters, {CHARACTERS_A_TOKEN:g} a token"

    def prompt(self, request: Request) -> Prompt:
        """What the model reads."""
        if isinstance(request, Score):
            return self._ids(request.prefix + request.target)
        if self._tokenizer is None or self._tokenizer.chat_template is None:
            return self._ids("\n".join(f"{role}: {content}" for role, content in request.messages))
        return chat_ids(self._tokenizer, request)

    def count(self, prompt: Prompt) -> int:
        return round(len(prompt) / CHARACTERS_A_TOKEN) if isinstance(prompt, str) else len(prompt)

    def count_text(self, text: str) -> int:
        return self.count(self._ids(text))

    def _ids(self, text: str) -> Prompt:
        return text if self._tokenizer is None else text_ids(self._tokenizer, text)
