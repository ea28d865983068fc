"""Texts written by a causal model, many at once: what their prompts begin with alike is read once and kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from uar.llm.models.attention import shared_prefix
from uar.llm.models.ending import Ends

LEAST = 32  # tokens that are worth keeping
HALF = 0.5  # of the texts: where no more are unfinished, the finished ones leave the batch

Choose = Callable[[torch.Tensor], torch.Tensor]  # (rows, vocabulary) logits -> (rows,) tokens


class _Layer(DynamicLayer):
    """Keys and values of one layer, in a buffer with room for the tokens to come: a step copies none of those before."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room, self._length = room, 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        start, self._length = self._length, self._length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = (
                states.new_zeros(*states.shape[:2], self._length + self._room, states.shape[-1])
                for states in (key_states, value_states)
            )
        self.keys[:, :, start : self._length] = key_states
        self.values[:, :, start : self._length] = value_states
        return self.keys[:, :, : self._length], self.values[:, :, : self._length]

    def get_seq_length(self) -> int:
        return self._length


@dataclass(frozen=True)
class _Prefix:
    """What was read: token ids, and by layer keys and values, (heads, tokens, size) each."""

    ids: list[int]
    states: list[tuple[torch.Tensor, torch.Tensor]]

    def head(self, tokens: int) -> "_Prefix":
        return _Prefix(self.ids[:tokens], [(key[:, :tokens], value[:, :tokens]) for key, value in self.states])


class Writing:
    """Of one model whose attention is that of `attention.py`. The last prefix that was read is kept for the next batch.
    `cuts_logits`: whether the model can be told to compute those of the last token alone."""

    def __init__(self, model: Any, cuts_logits: bool) -> None:
        self._model = model
        self._options = {"logits_to_keep": 1} if cuts_logits else {}
        self._layers = model.config.get_text_config().num_hidden_layers
        self._prefix = _Prefix([], [])

    def shared(self, prompts: Sequence[list[int]]) -> tuple[int, bool]:
        """How many tokens the prompts begin with alike, all of which are kept now, and whether they were before. Each prompt
        has further ones."""
        most = min(map(len, prompts)) - 1
        known = min(len(commonprefix([self._prefix.ids, *prompts])), most)
        alike = min(len(commonprefix([*prompts])), most) if len(prompts) > 1 else known
        if known >= max(LEAST, HALF * alike):
            self._prefix = self._prefix.head(known)
            return known, True
        self._prefix = self._read(prompts[0][:alike]) if alike >= LEAST else _Prefix([], [])
        return len(self._prefix.ids), False

    def write(
        self, prompts: Sequence[list[int]], most: int, stops: set[int], ends: Sequence[Ends], choose: Choose
    ) -> list[list[int]]:
        """The tokens that follow each prompt: `most` of them, or up to one of `stops`, which is given too, or until what
        `ends` has for the prompt says so. Call `shared` with the same prompts first."""
        start = len(self._prefix.ids)
        own = [prompt[start:] for prompt in prompts]
        longest, device = max(map(len, own)), self._model.device
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in own], device=device)
        padding = torch.tensor([longest - len(p) for p in own], device=device)
        written: list[list[int]] = [[] for _ in prompts]
        rows, unfinished = list(range(len(prompts))), set(range(len(prompts)))
        cache = Cache(layers=[_Layer(most) for _ in range(self._layers)])
        places = (torch.arange(longest, device=device) - padding[:, None]).clamp(min=0) + start
        with shared_prefix(self._prefix.states):
            for step in range(most):
                logits = self._logits(ids, places, self._mask(padding, longest + step, ids.shape[1]), cache)
                chosen = choose(logits)
                for row, token in zip(rows, chosen.tolist(), strict=True):
                    if row in unfinished:
                        written[row].append(token)
                        if token in stops or ends[row](written[row]):
                            unfinished.remove(row)
                going = [at for at, row in enumerate(rows) if row in unfinished]
                if not going:
                    break
                if len(going) <= HALF * len(rows):
                    kept = torch.tensor(going, device=device)
                    cache.batch_select_indices(kept)
                    rows, padding, chosen, places = [rows[at] for at in going], padding[kept], chosen[kept], places[kept]
                ids, places = chosen[:, None], places[:, -1:] + 1
        return written

    def _read(self, ids: list[int]) -> _Prefix:
        cache = Cache(layers=[_Layer(0) for _ in range(self._layers)])
        row = torch.tensor([ids], device=self._model.device)
        self._logits(row, torch.arange(len(ids), device=row.device)[None], None, cache)
        return _Prefix(ids, [(layer.keys[0], layer.values[0]) for layer in cache.layers])

    def _mask(self, padding: torch.Tensor, length: int, new: int) -> torch.Tensor:
        """(rows, 1, new, length), what is added to the scores of attention: a token sees those of its row up to itself."""
        at = torch.arange(length, device=padding.device)
        seen = (at >= padding[:, None, None]) & (at <= at[-new:, None])
        seen |= at == at[-new:, None]  # padding sees itself, so that no row of scores is empty
        mask = torch.zeros(seen.shape, dtype=self._model.dtype, device=padding.device)
        return mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)[:, None]

    def _logits(self, ids: torch.Tensor, places: torch.Tensor, mask: torch.Tensor | None, cache: Cache) -> torch.Tensor:
        given = {"input_ids": ids, "position_ids": places, "attention_mask": mask, "past_key_values": cache}
        last: torch.Tensor = self._model(**given, use_cache=True, **self._options).logits[:, -1].float()
        return last


def greedy(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1)


def sampled(temperature: float) -> Choose:
    """Tokens drawn from the model's own distribution."""

    def choose(logits: torch.Tensor) -> torch.Tensor:
        return torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]

    return choose
