"""Batches of a stage: which queries, which passages, and what is positive for whom.

Everything random is a function of (seed, epoch, query id), so that the order is the same on any machine, and a resumed run
goes on with the batches that an uninterrupted one would have had.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from uar.collections.token_ids import Tokens
from uar.labels import Example, Stage
from uar.retrievers.trainable import first_places
from uar.storage.copies import first_of_equal
from uar.storage.ordering import rank_of
from uar.training.masks import among, utilities


@dataclass
class Batch:
    """queries, passages: token ids; rows: (passages,) corpus rows, each once; shown, targets, known: (queries, most) corpus
    rows of the passages that were chosen for a query, of the positives to learn and of all passages that are never a
    negative, padded with -2; judged, utility: (queries, most) corpus rows of the passages that have a utility, and it;
    row_weights: (queries,) fp32, the stage's greatest being 1."""

    query_ids: list[str]
    queries: list[np.ndarray]
    passages: list[np.ndarray]
    rows: torch.Tensor
    shown: torch.Tensor
    targets: torch.Tensor
    known: torch.Tensor
    judged: torch.Tensor
    utility: torch.Tensor
    row_weights: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.type is torch.Tensor}
        return replace(self, **moved)

    def masks(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(targets, valid), both (queries, len(rows)), for passages `rows`, which may come from several devices.

        A passage counts once, at its first place; a known positive of a query is its target or nothing, never its negative.
        """
        first = first_places(rows)
        targets = among(rows, self.targets) & first
        valid = first & (targets | ~among(rows, self.known))
        return targets, valid

    def utilities(self, rows: torch.Tensor) -> torch.Tensor:
        """(queries, len(rows)) utility of a passage at its first place, nan where there is none."""
        return utilities(rows, self.judged, self.utility).masked_fill(~first_places(rows), torch.nan)


class BatchStream:
    """Iterable over the batches of the current epoch for one of `world` processes; `state_dict` holds the position.

    Every process sees as many batches, and in each as many queries: they are spread evenly over the epoch, and at its end less
    than one query a process is left out. Where there are fewer queries than processes, all see all of them. Queries of weight
    0 are left out; the weights of the others are divided by the greatest, so that equal ones are 1 exactly. Queries of equal
    tokens are one to the model: what is known of one is known of all. So are passages of equal tokens, which all stand at the
    corpus row of the first: a batch shows one of them, and what is a positive of a query in one copy is its negative in none.

    `random_negatives`: passages a query that are drawn from the whole corpus and shown beside those of its example, as
    negatives of all queries of the batch.
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
        random_negatives: int = 0,
    ) -> None:
        self._examples = [e for e in stage.examples if e.weight > 0]
        self._heaviest, self._seed, self._most = stage.heaviest, seed, stage.most_positives
        self._query_tokens, self._query_rows = query_tokens, query_rows
        self._passage_tokens, self._passage_rows = passage_tokens, _at_first_copy(passage_tokens, passage_rows)
        self._batch_size, self._per_query = batch_size, passages_per_query
        self._rank, self._world = rank, world
        self._random = random_negatives
        self._first_row = _by_content(passage_tokens, self._passage_rows.values()) if random_negatives else {}
        self._alike = _alike(stage.examples, query_tokens, query_rows)
        self.epoch = 0
        self._position = 0

    def __len__(self) -> int:
        return max(1, -(-(len(self._examples) // self._world) // self._batch_size))

    def __iter__(self) -> Iterator[Batch]:
        if self._position >= len(self):  # the epoch before was read to its end
            self.epoch, self._position = self.epoch + 1, 0
        examples = self._examples
        order = sorted(range(len(examples)), key=lambda i: rank_of(self._seed, "order", str(self.epoch), examples[i].query_id))
        each = len(order) // self._world
        mine = order[self._rank : each * self._world : self._world] if each else order
        for number, chunk in enumerate(np.array_split(np.array(mine), len(self))):
            if number < self._position:
                continue
            self._position = number + 1
            yield self._batch([examples[i] for i in chunk])

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self._position = state["epoch"], state["position"]

    def _batch(self, examples: Sequence[Example]) -> Batch:
        chosen = [self._choose(e) for e in examples]
        shown = [[self._passage_rows[d] for d in (*positives, *negatives)] for positives, negatives in chosen]
        drawn = [self._drawn(e) for e in examples]
        rows = list(dict.fromkeys(row for part in (shown, drawn) for of_query in part for row in of_query))
        useful = [self._utilities(e) for e in examples]
        return Batch(
            query_ids=[e.query_id for e in examples],
            queries=[self._query_tokens[self._query_rows[e.query_id]] for e in examples],
            passages=[self._passage_tokens[row] for row in rows],
            rows=torch.tensor(rows),
            shown=_padded([[*own, *more] for own, more in zip(shown, drawn, strict=True)], -2),
            targets=self._padded(
                [e.positives if self._most is None else p for e, (p, _) in zip(examples, chosen, strict=True)]
            ),
            known=self._padded([self._known(e) for e in examples]),
            judged=_padded([list(u) for u in useful], -2),
            utility=_padded([list(u.values()) for u in useful], torch.nan),
            row_weights=torch.tensor([e.weight / self._heaviest for e in examples], dtype=torch.float32),
        )

    def _choose(self, example: Example) -> tuple[list[str], list[str]]:
        """Positives and negatives of one query, `passages_per_query` in all where there are as many."""
        place = (str(self.epoch), example.query_id)
        positives = sorted(example.positives, key=lambda d: rank_of(self._seed, "positive", *place, d))
        copied = {self._passage_rows[d] for d in example.positives}
        others = [d for d in example.negatives if self._passage_rows[d] not in copied]
        negatives = sorted(others, key=lambda d: rank_of(self._seed, "negative", *place, d))
        room = max(1, self._per_query - 1)
        positives = positives[: min(room, self._most or room)]
        return positives, negatives[: max(0, self._per_query - len(positives))]

    def _drawn(self, example: Example) -> list[int]:
        """Corpus rows of any passages; a copy of one that an example has stands at the row of that one."""
        draws = (
            rank_of(self._seed, "random", str(self.epoch), example.query_id, str(number)) for number in range(self._random)
        )
        rows = [int.from_bytes(draw[:8], "little") % len(self._passage_tokens) for draw in draws]
        return [self._first_row.get(_content(self._passage_tokens, row), row) for row in rows]

    def _known(self, example: Example) -> list[str]:
        """Passages that are never a negative of the query."""
        return list(dict.fromkeys(d for e in self._alike.get(example.query_id, [example]) for d in e.positives + e.ignored))

    def _utilities(self, example: Example) -> dict[int, float]:
        """By corpus row; of copies, that of the first, positives coming before negatives."""
        by_row: dict[int, float] = {}
        for doc_id, utility in example.utilities().items():
            by_row.setdefault(self._passage_rows[doc_id], utility)
        return by_row

    def _padded(self, ids: Sequence[Sequence[str]]) -> torch.Tensor:
        return _padded([[self._passage_rows[d] for d in row] for row in ids], -2)


def _alike(examples: Sequence[Example], tokens: Tokens, rows: Mapping[str, int]) -> dict[str, list[Example]]:
    """By query, the examples of its tokens, where there are several."""
    groups: dict[bytes, list[Example]] = defaultdict(list)
    for example in examples:
        groups[tokens[rows[example.query_id]].tobytes()].append(example)
    return {e.query_id: group for group in groups.values() if len(group) > 1 for e in group}


def _at_first_copy(tokens: Tokens, rows: Mapping[str, int]) -> dict[str, int]:
    """By passage, the corpus row of the first one of its tokens."""
    first = first_of_equal(tokens[row].tobytes() for row in rows.values())
    return dict(zip(rows, np.fromiter(rows.values(), np.int64, len(rows))[first].tolist(), strict=True))


def _content(tokens: Tokens, row: int) -> bytes:
    return hashlib.blake2b(tokens[row].tobytes(), digest_size=8).digest()


def _by_content(tokens: Tokens, rows: Iterable[int]) -> dict[bytes, int]:
    return {_content(tokens, row): row for row in rows}


def _padded(rows: Sequence[Sequence[float]], filling: float) -> torch.Tensor:
    """(rows, most) of rows of different lengths."""
    widest = max(map(len, rows))
    kind = torch.int64 if isinstance(filling, int) else torch.float32
    return torch.tensor([[*row, *[filling] * (widest - len(row))] for row in rows], dtype=kind)
