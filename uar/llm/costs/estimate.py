"""Dry runs: what a run would ask and cost, from the prompts of a few questions, with nothing asked."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os.path import commonprefix
from typing import Any, NamedTuple

from uar.errors import UserError
from uar.llm.call import Asker, Call, Question
from uar.llm.costs.ledger import Prices
from uar.llm.models.tokens import chat_ids, prefix_ids, text_ids
from uar.llm.pictured import without_images
from uar.llm.record import Choose, Generate, Outcome, Reply, Request, Score, shown_images
from uar.llm.store.answers import answer
from uar.llm.store.store import Store
from uar.machine.model_files import locate, pretrained

CHARACTERS_A_TOKEN = 4.0
SAMPLE = 100  # questions
Prompt = Sequence[int] | str  # token ids, or text where there is no tokenizer
Kept = Callable[[Call], Reply | None]


class Asked(NamedTuple):
    """A call: its stage, its request, a reply as it may be, whether the store has one, and which model is asked."""

    stage: str
    request: Request
    example: str
    kept: bool
    llm: int


Rendered = tuple[Question, list[Asked]]


def _prompts_of(asker: Asker, question: Question, kept: Kept) -> Iterator[Asked]:
    """The calls of a question, if the replies that are not kept were like the examples."""
    chain = asker.chain(question)
    try:
        calls = next(chain)
        while True:
            replies = [kept(call) for call in calls]
            for call, reply in zip(calls, replies, strict=True):
                yield Asked(call.stage, call.request, call.example, reply is not None, call.llm)
            calls = chain.send([reply or Reply(call.example) for call, reply in zip(calls, replies, strict=True)])
    except StopIteration:
        return


def render(asker: Asker, sample: Iterable[Question], kept: Kept = lambda call: None) -> list[Rendered]:
    """The questions with what would be asked of each. `kept`: the good reply that the store has."""
    return [(question, list(_prompts_of(asker, question, kept))) for question in sample]


def good_replies(store: Store, models: Sequence[str]) -> Kept:
    """`kept` of a store, of models in the order that calls name them."""

    def find(call: Call) -> Reply | None:
        record = answer(store, call.request, models[call.llm], lambda kept: call.check(kept.reply()))
        return record.reply() if record is not None and call.check(record.reply()) == Outcome.OK else None

    return find


def estimate(
    sample: Sequence[Rendered],
    queries: int,
    tokenizer: "TokenCounter",
    prices: Prices,
    tokens_per_second: float | None,
    keeps_prefixes: bool = False,
) -> dict[str, Any]:
    """Calls, tokens, seconds and cost of `queries` questions like those of `sample`, as if the store were empty. Replies that
    it does not hold are made up: a selection keeps two passages of five. `tokens_cached` is what a prefix cache spares within
    a question, and between questions where the model `keeps_prefixes`; `sampled_calls_kept` of the `sampled_calls` would not
    be asked. Calls of several models are counted by the first one's tokenizer. Each of the `images` that calls show counts
    `image_tokens` of the prices, none where these do not say it."""
    stages: dict[str, Counter[str]] = {}
    further: dict[int, Counter[str]] = {}
    pictured = 0
    begins = _beginnings(sample, tokenizer) if keeps_prefixes else {}
    for _, asked in sample:
        before: list[Prompt] = []
        for stage, request, example, _, llm in asked:
            prompt = tokenizer.prompt(request)
            images = shown_images(request)
            pictured += images
            shared = len(begins.get(stage, ())) if stage in stages else 0
            counts = stages.setdefault(stage, Counter())
            of_call = {
                "calls": 1,
                "tokens_in": tokenizer.count(prompt) + images * (prices.image_tokens or 0),
                "tokens_out": _written(request, tokenizer, example),
                "tokens_cached": max((tokenizer.count(_shared(prompt, other)) for other in before), default=shared),
            }
            counts.update(of_call)
            if llm:
                further.setdefault(llm, Counter()).update(of_call)
            before.append(prompt)
    scale = queries / len(sample)
    rows = {stage: {name: round(scale * n) for name, n in counts.items()} for stage, counts in stages.items()}
    total = Counter[str]()
    for row in rows.values():
        total.update(row)
    computed = total["tokens_in"] - total["tokens_cached"] + total["tokens_out"]
    seconds = computed / tokens_per_second if tokens_per_second else None
    of_models = {llm: {name: scale * n for name, n in counts.items()} for llm, counts in further.items()}
    cost, hours = prices.cost(total, seconds, of_models), prices.gpu_hours(seconds)
    pairs = round(scale * sum(len(question.passages) for question, _ in sample))
    return {
        "queries": queries,
        "queries_rendered": len(sample),
        "sampled_calls": sum(len(asked) for _, asked in sample),
        "sampled_calls_kept": sum(one.kept for _, asked in sample for one in asked),
        "pairs": pairs,
        "images": round(scale * pictured),
        "image_tokens": prices.image_tokens,
        "tokens_counted_by": tokenizer.name,
        **{name: total[name] for name in ("calls", "tokens_in", "tokens_cached", "tokens_out")},
        "tokens_per_second": tokens_per_second,
        "seconds": None if seconds is None else round(seconds, 1),
        "gpu_hours": None if hours is None else round(hours, 4),
        "currency": prices.currency,
        "cost": None if cost is None else round(cost, 4),
        "human_cost": prices.people(pairs),
        "stages": rows,
    }


def _beginnings(sample: Sequence[Rendered], tokenizer: "TokenCounter") -> dict[str, Prompt]:
    """By stage, what the prompts of its texts have in common."""
    prompts: dict[str, list[Prompt]] = {}
    for one in (one for _, asked in sample for one in asked if isinstance(one.request, Generate)):
        prompts.setdefault(one.stage, []).append(tokenizer.prompt(one.request))
    return {stage: commonprefix(of_stage) for stage, of_stage in prompts.items()}  # type: ignore[arg-type]


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
            self._tokenizer: Any = pretrained(AutoTokenizer, locate(model))
            self.name = "tokenizer"
        except (OSError, ValueError, UserError):
            self._tokenizer = None
            self.name = f"characters, {CHARACTERS_A_TOKEN:g} a token"

    def prompt(self, request: Request) -> Prompt:
        """What the model reads, without images."""
        if isinstance(request, Score):
            whole = request.prefix + request.target
            return whole if self._tokenizer is None else prefix_ids(self._tokenizer, whole)
        text = replace(request, messages=without_images(request.messages))
        if self._tokenizer is None or self._tokenizer.chat_template is None:
            return self._ids("\n".join(f"{role}: {content}" for role, content in text.messages))
        return chat_ids(self._tokenizer, text)

    def count(self, prompt: Prompt) -> int:
        return round(len(prompt) / CHARACTERS_A_TOKEN) if isinstance(prompt, str) else len(prompt)

    def count_text(self, text: str) -> int:
        return self.count(self._ids(text))

    def _ids(self, text: str) -> Prompt:
        return text if self._tokenizer is None else text_ids(self._tokenizer, text)
