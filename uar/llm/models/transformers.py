"""The `transformers` engine: any causal language model in this process, on the CPU or one GPU."""

import time
from collections import OrderedDict, deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from uar.errors import EngineError
from uar.llm.models.attention import packed_row, use_packed_attention
from uar.llm.models.model import Engine
from uar.llm.models.packing import Packed, pack, placed
from uar.llm.models.tokens import chat_ids, choice_ids, prefix_ids, text_ids
from uar.llm.record import Choose, Generate, Outcome, Reply, Request, Score
from uar.machine.model_files import locate, pretrained, without_bars
from uar.machine.precision import device, resolve_dtype

CPU_TOKENS, GPU_TOKENS = 1024, 8192
TEXTS = 2_048  # requests for texts that wait together: their prompts are long, and no two of them are read at once
WHOLE = {"top_p": 1.0, "top_k": 0}  # of the distribution that is sampled from


@dataclass(frozen=True)
class _Waiting:
    """A request for log-likelihoods and the token ids of its targets: one of a score, one a choice."""

    ticket: int
    request: Score | Choose
    targets: list[list[int]]

    @property
    def tokens(self) -> int:
        """Tokens of the row that it takes beside its prefix; the last one of a target is predicted only."""
        return sum(len(target) - 1 for target in self.targets)


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


class TransformersEngine(Engine):
    """`max_tokens`: tokens of one forward pass; null for 1024 on a CPU and 8192 on a GPU.

    Log-likelihoods: prefixes that wait together are read once for all their targets, packed without padding, and logits
    are computed at target positions only. Generation is greedy or sampled from the model's own distribution, in batches of
    like length and one `sample`, which is the seed; a `pattern` is not enforced. A request that is longer than the model's
    positions is an error.
    """

    name = "transformers"

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
            told = next(iter(str(error).splitlines()), type(error).__name__)
            raise EngineError(f"llm.model={model}: cannot be loaded ({told})") from error
        self.model.to(device()).eval()
        advised = self.model.generation_config  # penalties and cuts of its own among it, which no record would tell
        self.model.generation_config = GenerationConfig(
            bos_token_id=advised.bos_token_id, eos_token_id=advised.eos_token_id, pad_token_id=advised.pad_token_id
        )
        self._longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.max_tokens = max_tokens or (GPU_TOKENS if device().type == "cuda" else CPU_TOKENS)
        self.window = window
        self._by_groups = use_packed_attention(self.model)
        self._scores: OrderedDict[Any, deque[_Waiting]] = OrderedDict()  # by prefix: a text, or a chat and its reasoning
        self._texts: list[_Text] = []
        self._refused: list[tuple[int, Reply]] = []
        self._ahead = device().type == "cuda"  # a GPU computes a row while the next one is packed
        self._computed: _Row | None = None

    def submit(self, ticket: int, request: Request) -> None:
        if isinstance(request, Score):
            target = text_ids(self.tokenizer, request.target)
            self._scores.setdefault(request.prefix, deque()).append(_Waiting(ticket, request, [target]))
        elif isinstance(request, Choose):
            choices = [[token] for token in choice_ids(self.tokenizer, request)]
            prefix = (request.messages, request.reasoning)
            self._scores.setdefault(prefix, deque()).append(_Waiting(ticket, request, choices))
        else:
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
        """A row of what waits, on its way; None where all that waited was too long."""
        start = time.perf_counter()
        groups: list[tuple[list[int], list[_Waiting]]] = []
        used = 0
        while self._scores and used < self.max_tokens:
            key, waiting = next(iter(self._scores.items()))
            first = waiting[0].request
            prefix = prefix_ids(self.tokenizer, first.prefix) if isinstance(first, Score) else chat_ids(self.tokenizer, first)
            if groups and used + len(prefix) + waiting[0].tokens > self.max_tokens:
                break
            used += len(prefix)
            taken: list[_Waiting] = []
            while waiting and (not taken or used + waiting[0].tokens <= self.max_tokens):
                one = waiting.popleft()
                if self._fits(one.ticket, prefix, max(map(len, one.targets))):
                    used += one.tokens
                    taken.append(one)
            if not waiting:
                del self._scores[key]
            if taken:
                groups.append((prefix, taken))
        if not groups:
            return None
        packed = pack([(ids, [t for one in taken for t in one.targets]) for ids, taken in groups])
        return _Row(groups, self._target_logprobs(packed), start)

    def _fits(self, ticket: int, prompt: list[int], tokens: int) -> bool:
        """Whether so many tokens have a place after a prompt; else the request is refused."""
        if self._longest is None or len(prompt) + tokens <= self._longest:
            return True
        told = f"{len(prompt)} tokens and {tokens} after them are more than the model's {self._longest} positions"
        self._refused.append((ticket, Reply(told, Outcome.ERROR, len(prompt))))
        return False

    def _target_logprobs(self, packed: Packed) -> torch.Tensor:
        """(targets,) log-likelihood of each, in nat, on the model's device."""
        place, like = self.model.device, torch.empty(0, dtype=self.model.dtype, device=self.model.device)
        with packed_row(packed.buckets(), like) if self._by_groups else nullcontext(_dense_mask(packed, like)) as mask:
            logits = (
                self.model(
                    input_ids=placed(packed.ids, place),
                    position_ids=placed(packed.positions, place),
                    attention_mask=mask,
                    logits_to_keep=placed(packed.predict, place),
                    use_cache=False,
                )
                .logits[0]
                .float()
            )
        pick = placed(packed.pick, place)
        tokens = logits[pick, placed(packed.wanted, place)] - logits.logsumexp(-1)[pick]
        sums = torch.zeros(int(packed.owner[-1]) + 1, device=place)
        return sums.index_add_(0, placed(packed.owner, place), tokens)

    def _generate(self) -> list[tuple[int, Reply]]:
        """One batch of the longest prompts that wait, all with the sampling of the first; they are tokenised only now."""
        start = time.perf_counter()
        self._texts.sort(key=lambda text: (text.sampling, text.size))
        sampling = self._texts[-1].sampling
        batch: list[tuple[_Text, list[int]]] = []
        longest = 0
        while self._texts and self._texts[-1].sampling == sampling and (len(batch) + 1) * longest <= 8 * self.max_tokens:
            text = self._texts.pop()
            prompt = chat_ids(self.tokenizer, text.request)
            if self._fits(text.ticket, prompt, text.tokens):
                batch.append((text, prompt))
                longest = max(longest, len(prompt))
        if not batch:
            return []
        padded = self.tokenizer.pad({"input_ids": [prompt for _, prompt in batch]}, return_tensors="pt").to(self.model.device)
        temperature, most, seed = sampling
        how: dict[str, Any] = {"do_sample": False}
        if temperature:
            torch.manual_seed(seed)
            how = {"do_sample": True, "temperature": temperature, **WHOLE}
        output = self.model.generate(**padded, max_new_tokens=most, pad_token_id=self.tokenizer.pad_token_id, **how)
        seconds = (time.perf_counter() - start) / len(batch)
        stops = set(torch.as_tensor(self.model.generation_config.eos_token_id).view(-1).tolist())
        replies: list[tuple[int, Reply]] = []
        for (text, prompt), row in zip(batch, output[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((at for at, token in enumerate(row) if token in stops), None)
            written = self.tokenizer.decode(row[:end], skip_special_tokens=True)
            outcome = Outcome.TRUNCATED if end is None else Outcome.OK
            replies.append((text.ticket, Reply(written, outcome, len(prompt), len(row[:end]), 0, seconds)))
        return replies


def _dense_mask(packed: Packed, like: torch.Tensor) -> torch.Tensor:
    """What a model that computes attention its own way is given."""
    allowed = packed.allowed().to(like.device)
    return like.new_zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(like.dtype).min)
