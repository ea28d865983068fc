"""Log-likelihoods of targets by forward passes: packed into one row where the model gives each text what it gives it alone,
else one text a row."""

import inspect
import logging
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
import transformers

from uar.llm.models.attention import packed_row, use_packed_attention
from uar.llm.models.packing import Packed, pack
from uar.machine.feed import placed
from uar.machine.unrounded import unrounded_results
from uar.storage.files import cache_dir, digest, read_json, write_json

log = logging.getLogger(__name__)
Group = tuple[Sequence[int], Sequence[Sequence[int]]]  # ids of a prefix and of its targets, none of them empty
TOLERANCE = {torch.float32: 2e-4, torch.float16: 0.05, torch.bfloat16: 0.25}  # nat a token: sums in another order
WINDOWS = {"sliding_window": "sliding_attention", "attention_chunk_size": "chunked_attention"}  # option, kind of layer
PREFIXES = (2, 40, 7, 19, 272, 12)  # tokens, in the trial; GPT-Neo, which does not say it in its config, sees 256
TARGETS = (6, 4)  # tokens of those of each prefix
TRIAL = 1  # a new number tries anew


class LogLikelihoods:
    """Of one causal model, which is tried when it is first opened: attention over a window, layers that carry a state from
    token to token, or a model that takes no mask would make texts of one row see each other, or not all of themselves.

    `identity`: of the weights; the cache remembers what came of the trial. `packed_length`: texts up to so many tokens may be
    packed, the others have a row of their own. None: all may.
    """

    def __init__(self, model: Any, name: str, identity: str) -> None:
        self._model = model
        self.cuts_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.by_groups = use_packed_attention(model)
        self.packed_length = _window(model.config.get_text_config())
        reason = self._remembered(identity)
        if reason is not None:
            self.packed_length = 0
            log.info("%s is read one text a row, not packed: %s", name, reason)
        elif self.packed_length is not None:
            log.info("%s reads texts of more than %d tokens, its window, one a row", name, self.packed_length)

    def packs(self, tokens: int) -> bool:
        """Whether a text of so many tokens may share its row."""
        return self.packed_length is None or tokens <= self.packed_length

    def packed(self, groups: Sequence[Group]) -> torch.Tensor:
        """(targets,) log-likelihood of each, in nat, on the model's device; a prefix is read once for all its targets."""
        row = pack(groups)
        like = torch.empty(0, dtype=self._model.dtype, device=self._model.device)
        with packed_row(row.buckets(), like) if self.by_groups else nullcontext(_dense_mask(row, like)) as mask:
            places = {"position_ids": placed(row.positions, like.device), "attention_mask": mask}
            logits = self._logits(row.ids, row.predict, **places)[0].float()
        pick = placed(row.pick, like.device)
        tokens = logits[pick, placed(row.wanted, like.device)] - logits.logsumexp(-1)[pick]
        return _sums(tokens, row.owner)

    def alone(self, groups: Sequence[Group]) -> torch.Tensor:
        """What `packed` gives, with one text a row, padded on the right: no token sees what comes after it."""
        texts: dict[tuple[int, ...], int] = {}
        rows: list[int] = []
        places: list[int] = []
        wanted: list[int] = []
        owner: list[int] = []
        for number, (prefix, target) in enumerate((prefix, target) for prefix, targets in groups for target in targets):
            row = texts.setdefault((*prefix, *target[:-1]), len(texts))  # one for all targets of one token
            rows += [row] * len(target)
            places += range(len(prefix) - 1, len(prefix) + len(target) - 1)
            wanted += target
            owner += [number] * len(target)
        ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
        for text, row in texts.items():
            ids[row, : len(text)] = torch.tensor(text)
        keep, at = torch.unique(torch.tensor(places), return_inverse=True)
        device = self._model.device
        logits = self._logits(ids, keep)[placed(torch.tensor(rows), device), placed(at, device)].float()
        return _sums(
            logits.log_softmax(-1).gather(1, placed(torch.tensor(wanted), device)[:, None])[:, 0], torch.tensor(owner)
        )

    def _logits(self, ids: torch.Tensor, keep: torch.Tensor, **options: Any) -> torch.Tensor:
        """(rows, kept, vocabulary) of the places to keep."""
        keep = placed(keep, self._model.device)
        options |= {"logits_to_keep": keep} if self.cuts_logits else {}
        with unrounded_results(self._model.get_output_embeddings()):
            logits: torch.Tensor = self._model(input_ids=placed(ids, self._model.device), use_cache=False, **options).logits
        return logits if self.cuts_logits else logits[:, keep]

    def _remembered(self, identity: str) -> str | None:
        """What `_trial` returns."""
        about = [TRIAL, identity, str(self._model.dtype), self._model.device.type, torch.__version__, transformers.__version__]
        memo = cache_dir() / "packing" / f"{digest(about)}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or broken: tried anew
            known: str | None = read_json(memo)["reason"]
            return known
        reason = self._trial()
        write_json(memo, {"model": identity, "reason": reason})
        return reason

    @torch.inference_mode()
    def _trial(self) -> str | None:
        """Why texts cannot be packed, by the likelihoods of some made up; None where they can."""
        config = self._model.config.get_text_config()
        longest = max(TARGETS)
        allowed = (self.packed_length, getattr(config, "max_position_embeddings", None), max(PREFIXES) + longest)
        most = min(length for length in allowed if length) - longest
        if most < 1:
            return f"its window is {self.packed_length} tokens"
        random = torch.Generator().manual_seed(0)

        def some(tokens: int) -> list[int]:
            return torch.randint(config.vocab_size, (tokens,), generator=random).tolist()

        groups = [(some(min(n, most)), [some(t) for t in TARGETS]) for n in PREFIXES]
        tokens = torch.tensor([len(target) for _, targets in groups for target in targets])
        try:
            packed = self.packed(groups).cpu() / tokens
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return f"it does not take the mask of a packed row ({type(error).__name__})"
        alone = torch.cat([self.alone([group]) for group in groups]).cpu() / tokens
        gap, tolerance = float((packed - alone).abs().max()), TOLERANCE.get(self._model.dtype, min(TOLERANCE.values()))
        return None if gap <= tolerance else f"packed log-likelihoods are {gap:.3g} nat a token off, {tolerance:g} are allowed"


def _window(config: Any) -> int | None:
    """Tokens that every layer sees."""
    kinds = getattr(config, "layer_types", None)
    found = [getattr(config, name, None) for name, kind in WINDOWS.items() if kinds is None or kind in kinds]
    return min((int(window) for window in found if window), default=None)


def _sums(tokens: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Of the tokens of each target."""
    sums = torch.zeros(int(owner[-1]) + 1, device=tokens.device)
    return sums.index_add_(0, placed(owner, tokens.device), tokens)


def _dense_mask(packed: Packed, like: torch.Tensor) -> torch.Tensor:
    """What a model that computes attention its own way is given."""
    allowed = packed.allowed().to(like.device)
    return like.new_zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(like.dtype).min)
