"""The `transformers` engine: any causal language model in this process, on the CPU or one GPU."""

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from uar.errors import EngineError
from uar.llm.models.ending import Ends, early_end
from uar.llm.models.log_likelihoods import LogLikelihoods
from uar.llm.models.model import Model
from uar.llm.models.tokens import CannotScore, chat_ids, choice_ids, prefix_ids, target_ids
from uar.llm.models.writing import Writing, greedy, sampled
from uar.llm.record import Choose, Generate, Outcome, Reply, Request, Score
from uar.machine.model_files import commit_of, identity, locate, pretrained, why_not_loaded, without_bars
from uar.machine.precision import device, resolve_dtype

CPU_TOKENS, GPU_TOKENS = 1024, 8192
TEXTS = 2_048  # requests for texts that wait together: their prompts are long, and no two of them are read at once
FIRST_ROWS, GROWTH = 4, 4  # texts of the first batch, and how many times as many the next one may have
WHOLE = {"top_p": 1.0, "top_k": 0}  # of the distribution that is sampled from


@dataclass
class _Waiting:
    """A request for log-likelihoods and the token ids of its targets: one of a score, once its turn comes, one a choice."""

    ticket: int
    request: Score | Choose
    targets: list[list[int]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens of the row that it takes beside its prefix; the last one of a target is predicted only."""
        return sum(len(target) - 1 for target in self.targets)

    @property
    def longest(self) -> int:
        return max(map(len, self.targets))


@dataclass(frozen=True)
class _Text:
    """A request for a text. `size`: characters of its messages."""

    ticket: int
    request: Generate
    size: int

    @property
    def tokens(self) -> int:
        """To be written, at most."""
        return self.request.max_tokens + self.request.reasoning_tokens

    @property
    def sampling(self) -> tuple[float, int, int]:
        """Temperature, tokens at most and seed: what one batch has in common."""
        request = self.request
        return request.temperature, self.tokens, request.sample if request.temperature else 0


@dataclass(frozen=True)
class _Row:
    """What was packed into one forward pass, and the log-likelihoods of its targets, which a GPU may still compute."""

    groups: list[tuple[list[int], list[_Waiting]]]
    logprobs: torch.Tensor
    start: float

    def replies(self) -> list[tuple[int, Reply]]:
        sums = iter(self.logprobs.tolist())
        seconds = (time.perf_counter() - self.start) / sum(len(taken) for _, taken in self.groups)
        replies: list[tuple[int, Reply]] = []
        for prefix, taken in self.groups:
            for nth, one in enumerate(taken):
                usage: dict[str, Any] = {
                    "tokens_in": len(prefix) + (len(one.targets[0]) if isinstance(one.request, Score) else 0),
                    "tokens_cached": len(prefix) if nth else 0,
                    "seconds": seconds,
                }
                if isinstance(one.request, Score):
                    reply = Reply.of_score(next(sums), len(one.targets[0]), **usage)
                else:
                    reply = Reply.of_choices({choice: next(sums) for choice in one.request.choices}, **usage)
                replies.append((one.ticket, reply))
        return replies


class _Room:
    """What one forward pass of `most` tokens takes: texts that are packed, or texts that have a row each, as the first one
    has it."""

    def __init__(self, most: int, likelihoods: LogLikelihoods) -> None:
        self._most, self._likelihoods = most, likelihoods
        self._used = self._rows = self._longest = 0
        self.packs = True
        self.full = False

    def take(self, one: _Waiting, prefix: int, shared: bool) -> bool:
        """Whether there is room for one more; the first one always has it. `shared`: its prefix is there already."""
        text = prefix + one.longest - 1
        packs = self._likelihoods.packs(text)
        if not self._rows:
            self.packs = packs
        longest = max(self._longest, text)
        used = self._used + one.tokens + (0 if shared else prefix) if self.packs else longest * (self._rows + 1)
        self.full = self._rows > 0 and (used > self._most or packs != self.packs)
        if self.full:
            return False
        self._used, self._longest, self._rows = used, longest, self._rows + 1
        return True


class Transformers(Model):
    """`max_tokens`: tokens of one forward pass; null for 1024 on a CPU and 8192 on a GPU.

    Log-likelihoods: prefixes that wait together are read once for all their targets, packed without padding, and logits
    are computed at target positions only; where a model gives packed texts other values (it is tried when it is loaded), each
    has a row of its own. Generation is greedy or sampled from the model's own distribution, in batches of
    like length and one `sample`, which is the seed; what their prompts begin with alike is read once; a `pattern` is not
    enforced. A request that is longer than the model's positions is an error.
    """

    name = "transformers"
    free_trial = True
    keeps_prefixes = True
    ends_early = True

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        max_tokens: int | None = None,
        window: int = 65_536,
    ) -> None:
        without_bars()
        path = locate(model)
        try:
            self.tokenizer: Any = pretrained(AutoTokenizer, path, revision=revision, padding_side="left")
            self.model: Any = pretrained(AutoModelForCausalLM, path, revision=revision, dtype=resolve_dtype(dtype))
        except Exception as error:  # what a loader raises over a broken folder depends on where it trips
            raise EngineError(f"llm.model={model}: {why_not_loaded(model, error)}") from error
        self.model.to(device()).eval()
        self.commit = commit_of(model, revision)
        advised = self.model.generation_config  # penalties and cuts of its own among it, which no record would tell
        text = self.model.config.get_text_config()
        self._stops = _ends(self.tokenizer.eos_token_id, advised.eos_token_id, getattr(text, "eos_token_id", None))
        self.model.generation_config = GenerationConfig(
            bos_token_id=advised.bos_token_id, eos_token_id=sorted(self._stops) or None, pad_token_id=advised.pad_token_id
        )
        self._longest = getattr(text, "max_position_embeddings", None)
        if self.tokenizer.pad_token_id is None and self._stops:
            self.tokenizer.pad_token_id = min(self._stops)  # padding is masked, so any would do
        self.max_tokens = max_tokens or (GPU_TOKENS if device().type == "cuda" else CPU_TOKENS)
        self.window = window
        self._likelihoods = LogLikelihoods(self.model, model, identity(model, revision))
        self._writing = Writing(self.model, self._likelihoods.cuts_logits)
        self._alike = 0  # tokens that the prompts of the last batch began with
        self._rows = FIRST_ROWS  # of the next batch of texts, at most
        self._model_name = model
        self._scores: OrderedDict[Any, deque[_Waiting]] = OrderedDict()  # by prefix: a text, or a chat and its reasoning
        self._texts: list[_Text] = []
        self._refused: list[tuple[int, Reply]] = []
        self._ahead = device().type == "cuda"  # a GPU computes a row while the next one is packed
        self._computed: _Row | None = None

    def submit(self, ticket: int, request: Request) -> None:
        if isinstance(request, Score):
            self._scores.setdefault(request.prefix, deque()).append(_Waiting(ticket, request))
        elif isinstance(request, Choose):
            choices = [[token] for token in choice_ids(self.tokenizer, request)]
            prefix = (request.messages, request.reasoning)
            self._scores.setdefault(prefix, deque()).append(_Waiting(ticket, request, choices))
        else:
            if not self._stops:
                raise EngineError(
                    f"llm.model={self._model_name}: neither its tokenizer nor its generation_config.json names a token that "
                    "ends a text; choose an instruction-tuned model"
                )
            self.window = min(self.window, TEXTS)
            self._texts.append(_Text(ticket, request, sum(len(text) for _, text in request.messages)))

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Reply]]:
        scoring = self._scores or self._computed
        done = self._score() if scoring else self._generate() if self._texts else []
        refused, self._refused = self._refused, []
        return refused + done

    def _score(self) -> list[tuple[int, Reply]]:
        row = self._computed or self._next_row()
        self._computed = self._next_row() if self._ahead and self._scores else None
        return row.replies() if row else []

    def _next_row(self) -> "_Row | None":
        """A row of what waits, or rows of one text each, on their way; None where all that waited was refused."""
        start = time.perf_counter()
        room = _Room(self.max_tokens, self._likelihoods)
        groups: list[tuple[list[int], list[_Waiting]]] = []
        while self._scores and not room.full:
            key, waiting = next(iter(self._scores.items()))
            first = waiting[0].request
            prefix = prefix_ids(self.tokenizer, first.prefix) if isinstance(first, Score) else chat_ids(self.tokenizer, first)
            taken: list[_Waiting] = []
            while waiting and not room.full:
                one = waiting.popleft()
                if not self._readable(one, prefix):
                    continue
                if room.take(one, len(prefix), bool(taken)):
                    taken.append(one)
                else:
                    waiting.appendleft(one)
            if not waiting:
                del self._scores[key]
            if taken:
                groups += [(prefix, taken)] if room.packs else [(prefix, [one]) for one in taken]
        if not groups:
            return None
        compute = self._likelihoods.packed if room.packs else self._likelihoods.alone
        return _Row(groups, compute([(prefix, [t for one in taken for t in one.targets]) for prefix, taken in groups]), start)

    def _readable(self, one: _Waiting, prefix: list[int]) -> bool:
        """Whether it can be read after its prefix; else it is refused."""
        if isinstance(one.request, Score) and not one.targets:
            try:
                one.targets = [target_ids(self.tokenizer, one.request, prefix)]
            except CannotScore as error:
                self._refused.append((one.ticket, Reply(str(error), Outcome.ERROR, len(prefix))))
                return False
        return self._fits(one.ticket, prefix, one.longest)

    def _fits(self, ticket: int, prompt: list[int], tokens: int) -> bool:
        """Whether so many tokens have a place after a prompt; else the request is refused."""
        if self._longest is None or len(prompt) + tokens <= self._longest:
            return True
        message = f"{len(prompt)} tokens and {tokens} after them are more than the model's {self._longest} positions"
        self._refused.append((ticket, Reply(message, Outcome.ERROR, len(prompt))))
        return False

    def _generate(self) -> list[tuple[int, Reply]]:
        """One batch of the longest prompts that wait, the first one of the shortest, so that somebody who watches soon sees
        replies; all have the sampling of the first, and are tokenised only now."""
        start = time.perf_counter()
        self._texts.sort(key=lambda text: (text.sampling, text.size), reverse=self._rows == FIRST_ROWS)
        sampling = temperature, most, seed = self._texts[-1].sampling
        batch: list[tuple[_Text, list[int]]] = []
        room = max(self._rows, len(self._texts) if len(self._texts) <= 2 * self._rows else 0)  # leaves no few for the end
        while self._texts and self._texts[-1].sampling == sampling and self._has_room(batch, room, most):
            text = self._texts.pop()
            prompt = chat_ids(self.tokenizer, text.request)
            if self._fits(text.ticket, prompt, text.tokens):
                batch.append((text, prompt))
        if not batch:
            return []
        if temperature:
            torch.manual_seed(seed)
        prompts = [prompt for _, prompt in batch]
        ends = [early_end(self.tokenizer, text.request, prompt) for text, prompt in batch]
        alike, known, rows = self._written(prompts, most, temperature, ends)
        self._rows *= GROWTH
        seconds = (time.perf_counter() - start) / len(batch)
        replies: list[tuple[int, Reply]] = []
        for nth, ((text, prompt), row) in enumerate(zip(batch, rows, strict=True)):
            end = next((at for at, token in enumerate(row) if token in self._stops), None)
            written = self.tokenizer.decode(row[:end], skip_special_tokens=True)
            outcome = (ends[nth](row) or Outcome.TRUNCATED) if end is None else Outcome.OK
            cached = alike if nth or known else 0
            replies.append((text.ticket, Reply(written, outcome, len(prompt), len(row[:end]), cached, seconds)))
        return replies

    def _has_room(self, batch: Sequence[tuple[_Text, list[int]]], rows: int, most: int) -> bool:
        """For one more text, of `rows` at most."""
        longest = max((len(prompt) for _, prompt in batch), default=0)
        own = longest - self._alike + most
        return len(batch) < rows and (len(batch) + 1) * own <= 8 * self.max_tokens

    def _written(
        self, prompts: Sequence[list[int]], most: int, temperature: float, ends: Sequence[Ends]
    ) -> tuple[int, bool, list[list[int]]]:
        """Tokens that the prompts begin with alike and that are read once, whether they were read before, and what follows
        each prompt."""
        if self._likelihoods.by_groups and self._likelihoods.packs(max(map(len, prompts)) + most):
            self._alike, known = self._writing.shared(prompts)
            choose = sampled(temperature) if temperature else greedy
            return self._alike, known, self._writing.write(prompts, most, self._stops, ends, choose)
        padded = self.tokenizer.pad({"input_ids": [*prompts]}, return_tensors="pt").to(self.model.device)
        how = {"do_sample": True, "temperature": temperature, **WHOLE} if temperature else {"do_sample": False}
        output = self.model.generate(**padded, max_new_tokens=most, pad_token_id=self.tokenizer.pad_token_id, **how)
        return 0, False, output[:, padded["input_ids"].shape[1] :].tolist()


def _ends(*named: int | Sequence[int] | None) -> set[int]:
    """The tokens that end a text, of which each place may name one, several or none."""
    return {int(token) for one in named if one is not None for token in ([one] if isinstance(one, int) else one)}
