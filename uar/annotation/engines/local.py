"""The `transformers` engine: any causal language model in this process, on the CPU or one GPU."""

import time
from collections import OrderedDict, deque
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from uar.annotation.engines.engine import Engine
from uar.annotation.engines.packing import pack
from uar.annotation.record import Generate, Outcome, Reply, Request, Score
from uar.errors import EngineError
from uar.models import locate, without_bars
from uar.precision import device, resolve_dtype

Target = tuple[int, list[int]]  # ticket, token ids


class TransformersEngine(Engine):
    """`max_tokens`: tokens of one forward pass; 512 keeps attention under a fifth of the work on a CPU, a GPU wants 8192.

    Log-likelihoods: prefixes that wait together are read once for all their targets, packed without padding, and logits
    are computed at target positions only. Generation is greedy or sampled, in batches of like length.
    """

    name = "transformers"

    def __init__(
        self, model: str, revision: str | None = None, dtype: str = "auto", max_tokens: int = 512, window: int = 65_536
    ) -> None:
        without_bars()
        path = locate(model)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision, padding_side="left")
            self.model: Any = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=resolve_dtype(dtype))
        except Exception as error:  # what a loader raises over a broken folder depends on where it trips
            told = next(iter(str(error).splitlines()), type(error).__name__)
            raise EngineError(f"llm.model={model}: cannot be loaded ({told})") from error
        self.model.to(device()).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.max_tokens = max_tokens
        self.window = window
        self._scores: OrderedDict[str, deque[Target]] = OrderedDict()
        self._texts: list[tuple[int, Generate, list[int]]] = []

    def submit(self, ticket: int, request: Request) -> None:
        if isinstance(request, Score):
            self._scores.setdefault(request.prefix, deque()).append((ticket, self._ids(request.target)))
        else:
            self._texts.append((ticket, request, self.chat_ids(request)))

    def chat_ids(self, request: Generate) -> list[int]:
        """Token ids of a chat under the model's own template."""
        if self.tokenizer.chat_template is None:
            raise EngineError(f"{self.model.name_or_path} has no chat template; choose an instruction-tuned model")
        return list(self.tokenizer.apply_chat_template(request.chat(), add_generation_prompt=True, return_dict=False))

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Reply]]:
        if self._scores:
            return self._score()
        return self._generate() if self._texts else []

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _score(self) -> list[tuple[int, Reply]]:
        start = time.perf_counter()
        groups: list[tuple[list[int], list[Target]]] = []
        used = 0
        while self._scores and used < self.max_tokens:
            text, waiting = next(iter(self._scores.items()))
            prefix = self._ids(text)
            if groups and used + len(prefix) + len(waiting[0][1]) > self.max_tokens:
                break
            used += len(prefix)
            targets = [waiting.popleft()]
            used += len(targets[0][1])
            while waiting and used + len(waiting[0][1]) <= self.max_tokens:
                targets.append(waiting.popleft())
                used += len(targets[-1][1])
            if not waiting:
                del self._scores[text]
            groups.append((prefix, targets))
        packed = pack([(prefix, [ids for _, ids in targets]) for prefix, targets in groups])
        place, dtype = self.model.device, self.model.dtype
        allowed = packed.allowed.to(place)
        mask = torch.zeros(allowed.shape, dtype=dtype, device=place).masked_fill_(~allowed, torch.finfo(dtype).min)
        logits = (
            self.model(
                input_ids=packed.ids.to(place),
                position_ids=packed.positions.to(place),
                attention_mask=mask,
                logits_to_keep=packed.predict.to(place),
                use_cache=False,
            )
            .logits[0]
            .float()
        )
        norm = logits.logsumexp(-1)[packed.pick]
        tokens = logits[packed.pick, packed.wanted.to(place)] - norm
        sums = torch.zeros(int(packed.owner[-1]) + 1, device=place).index_add_(0, packed.owner.to(place), tokens).tolist()
        seconds = (time.perf_counter() - start) / len(sums)
        replies: list[tuple[int, Reply]] = []
        for prefix, targets in groups:
            for nth, (ticket, ids) in enumerate(targets):
                usage = {"tokens_in": len(prefix) + len(ids), "tokens_cached": len(prefix) if nth else 0}
                replies.append((ticket, Reply.of_score(sums[len(replies)], len(ids), seconds=seconds, **usage)))
        return replies

    def _generate(self) -> list[tuple[int, Reply]]:
        """One batch of the longest prompts that wait, all with the sampling of the first."""
        start = time.perf_counter()
        self._texts.sort(key=lambda item: (item[1].temperature, item[1].max_tokens, len(item[2])))
        longest = self._texts[-1]
        batch = [longest]
        for item in reversed(self._texts[:-1]):
            alike = (item[1].temperature, item[1].max_tokens) == (longest[1].temperature, longest[1].max_tokens)
            if not alike or (len(batch) + 1) * len(longest[2]) > 8 * self.max_tokens:
                break
            batch.append(item)
        del self._texts[-len(batch) :]
        padded = self.tokenizer.pad({"input_ids": [ids for _, _, ids in batch]}, return_tensors="pt").to(self.model.device)
        sampling = (
            {"do_sample": True, "temperature": longest[1].temperature} if longest[1].temperature else {"do_sample": False}
        )
        output = self.model.generate(
            **padded, max_new_tokens=longest[1].max_tokens, pad_token_id=self.tokenizer.pad_token_id, **sampling
        )
        seconds = (time.perf_counter() - start) / len(batch)
        stops = set(torch.as_tensor(self.model.generation_config.eos_token_id).view(-1).tolist())
        replies: list[tuple[int, Reply]] = []
        for (ticket, _, ids), row in zip(batch, output[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((at for at, token in enumerate(row) if token in stops), None)
            text = self.tokenizer.decode(row[:end], skip_special_tokens=True)
            outcome = Outcome.TRUNCATED if end is None else Outcome.OK
            replies.append((ticket, Reply(text, outcome, len(ids), len(row[:end]), 0, seconds)))
        return replies
