"""Batches of a stage: which queries, which passages, and what is positive for whom.

Everything random is a function of (seed, epoch, query id), so that the order is the same on any machine, and a resumed run
goes on with the batches that an uninterrupted one would have had.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from uar.collections.tokens import Tokens
from uar.labels import Example, Stage
from uar.ranking import rank_of


@dataclass
class Batch:
    """queries, passages: token ids; rows: (passages,) corpus rows, each once; targets, known: (queries, most) corpus rows of
    the positives to learn and of all known positives, padded with -2."""

    query_ids: list[str]
    queries: list[np.ndarray]
    passages: list[np.ndarray]
    rows: torch.Tensor
    targets: torch.Tensor
    known: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        moved = (t.to(device) for t in (self.rows, self.targets, self.known))
        return Batch(self.query_ids, self.queries, self.passages, *moved)


def masks(batch: Batch, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(targets, valid), both (queries, len(rows)), for passages `rows`, which may come from several devices.

    A passage counts once, at its first place; a known positive of a query is its target or nothing, never its negative.
    """
    targets = (rows[None, :, None] == batch.targets[:, None, :]).any(-1)
    known = (rows[None, :, None] == batch.known[:, None, :]).any(-1)
    same = rows[:, None] == rows[None, :]
    first = ~torch.tril(same, diagonal=-1).any(1) & (rows >= 0)
    valid = first[None, :] & (targets | ~known)
    return targets & valid, valid


class BatchStream:
    """Iterable over the batches of the current epoch for one of `world` processes; `state_dict` holds the position.

    Every process sees the same number of batches: at the end of an epoch the queries that do not fill a batch for every
    process are spread evenly, and less than one query a process is left out.
    """

    def __init__(
        self,
        stage: Stage,
        query_tokens: Tokens,
        query_rows: dict[str, int],
        passage_tokens: Tokens,
        passage_rows: dict[str, int],
        batch_size: int,
        passages_per_query: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._stage, self._seed = stage, seed
        self._query_tokens, self._query_rows = query_tokens, query_rows
        self._passage_tokens, self._passage_rows = passage_tokens, passage_rows
        self._batch_size, self._per_query = batch_size, passages_per_query
        self._rank, self._world = rank, world
        self.epoch = 0
        self._position = 0

    def __len__(self) -> int:
        return max(1, -(-len(self._stage.examples) // (self._batch_size * self._world)))

    def __iter__(self) -> Iterator[Batch]:
        if self._position >= len(self):  # the epoch before was read to its end
            self.epoch, self._position = self.epoch + 1, 0
        examples = self._stage.examples
        order = sorted(range(len(examples)), key=lambda i: rank_of(self._seed, "order", str(self.epoch), examples[i].query_id))
        for number, chunk in enumerate(np.array_split(np.array(order), len(self))):
            if number < self._position:
                continue
            even = len(chunk) - len(chunk) % self._world or len(chunk)
            mine = chunk[:even][self._rank :: self._world] if len(chunk) >= self._world else chunk
            self._position = number + 1
            yield self._batch([examples[i] for i in mine])

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self._position = state["epoch"], state["position"]

    def _batch(self, examples: Sequence[Example]) -> Batch:
        chosen = [self._choose(e) for e in examples]
        passages = list(dict.fromkeys(d for positives, negatives in chosen for d in (*positives, *negatives)))
        rows = [self._passage_rows[d] for d in passages]
        return Batch(
            query_ids=[e.query_id for e in examples],
            queries=[self._query_tokens[self._query_rows[e.query_id]] for e in examples],
            passages=[self._passage_tokens[row] for row in rows],
            rows=torch.tensor(rows),
            targets=self._padded([self._targets(e, positives) for e, (positives, _) in zip(examples, chosen, strict=True)]),
            known=self._padded([e.positives for e in examples]),
        )

    def _targets(self, example: Example, chosen: Sequence[str]) -> Sequence[str]:
        return chosen if self._stage.positives == "one" else example.positives

    def _choose(self, example: Example) -> tuple[list[str], list[str]]:
        """Positives and negatives of one query, `passages_per_query` in all where there are as many."""
        place = (str(self.epoch), example.query_id)
        positives = sorted(example.positives, key=lambda d: rank_of(self._seed, "positive", *place, d))
        negatives = sorted(example.negatives, key=lambda d: rank_of(self._seed, "negative", *place, d))
        most = 1 if self._stage.positives == "one" else max(1, self._per_query - 1)
        positives = positives[:most]
        return positives, negatives[: max(0, self._per_query - len(positives))]

    def _padded(self, ids: Sequence[Sequence[str]]) -> torch.Tensor:
        widest = max(map(len, ids))
        return torch.tensor([[self._passage_rows[d] for d in row] + [-2] * (widest - len(row)) for row in ids])
