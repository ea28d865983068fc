"""Many texts through a model: sorted by length, in chunks of so many tokens, padding included, and back in their order."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from uar.errors import UserError
from uar.machine.feed import placed
from uar.machine.heap import release_heap

ON_CPU, ON_GPU = 2_048, 16_384  # tokens of a pass, by what is quick there
RELEASE = 1 << 13  # tokens of cached chunks between two releases of the heap
Compute = Callable[[torch.Tensor, torch.Tensor, list[int]], torch.Tensor]


def budget_on(device: torch.device, given: int | None, on_cpu: int = ON_CPU) -> int:
    """Tokens of one forward pass: as `given`, else what keeps the device busy."""
    if given is not None:
        return given
    return on_cpu if device.type == "cpu" else ON_GPU


class TokenBatches:
    """`budget`: tokens, padding included, of one forward pass; see `budget_on`. `pad`: the token that fills up."""

    def __init__(self, budget: int | None, pad: int, on_cpu: int = ON_CPU) -> None:
        if budget is not None and (type(budget) is not int or budget < 1):
            raise UserError(f"token_budget={budget}: a whole number from 1 on is needed, or null")
        self.budget, self._pad, self._on_cpu = budget, pad, on_cpu
        self._tokens_since_release = 0

    def each(self, texts: Sequence[np.ndarray], compute: Compute, device: torch.device, cached: bool) -> torch.Tensor:
        """(texts, …) what `compute` makes of arrays of token ids, in the order given. compute: ids and mask, both (chunk,
        length), and the places of the chunk's texts -> (chunk, …).

        `cached`: GradCache (arXiv 2101.06983). Chunks are computed again, dropout included, when their gradient is needed, so
        that the activations of one at a time are held, however many texts there are: on a CPU the heap is released now and
        then, since results that are kept lie between activations that are not.
        """
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        parts = []
        for chunk in self.chunks(order, texts, device):
            ids, mask = (placed(part, device) for part in self._padded([texts[i] for i in chunk]))
            if cached and torch.is_grad_enabled():
                parts.append(checkpoint(self._tidily, compute, ids, mask, chunk, use_reentrant=False, preserve_rng_state=True))
            else:
                parts.append(compute(ids, mask, chunk))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order, dtype=torch.long)] = torch.arange(len(order))
        return torch.cat(parts)[placed(back, device)]

    def chunks(self, order: Sequence[int], texts: Sequence[np.ndarray], device: torch.device) -> Iterator[list[int]]:
        """Places of the texts of each forward pass; `order`: of all of them, the longest first."""
        budget = budget_on(device, self.budget, self._on_cpu)
        chunk: list[int] = []
        for index in order:
            if chunk and (len(chunk) + 1) * len(texts[chunk[0]]) > budget:
                yield chunk
                chunk = []
            chunk.append(index)
        if chunk:
            yield chunk

    def _padded(self, texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, both (texts, length), padded on the right; the first text is the longest. A text of no tokens has one
        padding token."""
        shape = (len(texts), max(1, len(texts[0])))
        ids, mask = np.full(shape, self._pad, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : max(1, len(text))] = 1
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def _tidily(self, compute: Compute, ids: torch.Tensor, mask: torch.Tensor, chunk: list[int]) -> torch.Tensor:
        self._tokens_since_release += ids.numel()
        if self._tokens_since_release > RELEASE and ids.device.type == "cpu":
            release_heap()
            self._tokens_since_release = 0
        return compute(ids, mask, chunk)
