"""Batches of a stage: which queries, which passages, and what is positive for whom.

Everything random is a function of (seed, epoch, query id), so that the order is the same on any machine, and a resumed run
goes on with the batches that an uninterrupted one would have had.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from uar.collections.token_ids import Tokens
from uar.labels import Example, Stage
from uar.labels.example_columns import Examples, Passages, weights_of
from uar.machine.feed import ahead, placed
from uar.retrievers.trainable import first_places
from uar.storage.ordering import rank_of
from uar.training.further_texts import FurtherTexts
from uar.training.masks import among, utilities

NONE, CPU = torch.zeros(0, dtype=torch.int64), torch.device("cpu")


@dataclass
class Batch:
    """queries, passages: token ids; rows: (passages,) corpus rows, each once; shown, targets, known: (queries, most) corpus
    rows of the passages that were chosen for a query, of the positives to learn and of all passages that are never a
    negative, padded with -2; judged, utility: (queries, most) corpus rows of the passages that have a utility, and it;
    row_weights: (queries,) fp32, the stage's greatest being 1; variants: token ids of other wordings, the first of each query,
    then the second, and so on. misleading: token ids of texts that look as if they described a passage; misleading_of:
    (texts,) places of the queries whose positive it is; misled: (queries,) its corpus row, -2 where there is none. most:
    passages that the batches of all processes have at most."""

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
    most: int = 0
    misled: torch.Tensor = field(default_factory=lambda: NONE)
    misleading_of: torch.Tensor = field(default_factory=lambda: NONE)
    misleading: list[np.ndarray] = field(default_factory=list)
    variants: list[np.ndarray] = field(default_factory=list)

    def to(self, device: torch.device) -> "Batch":
        moved: dict[str, Any] = {f.name: placed(getattr(self, f.name), device) for f in fields(self) if f.type is torch.Tensor}
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
    negatives of all queries of the batch. `further`: texts that are encoded beside the queries. `device`: that computes; a GPU
    does not wait for batches to be made.
    """

    def __init__(
        self,
        stage: Stage,
        query_tokens: Tokens,
        query_rows: dict[str, int],
        passage_tokens: Tokens,
        passages: Passages,
        batch_size: int,
        passages_per_query: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        random_negatives: int = 0,
        further: FurtherTexts | None = None,
        device: torch.device = CPU,
    ) -> None:
        self._device = device
        self._examples = Examples.of(stage.examples, passages)
        self._used = np.flatnonzero(weights_of(self._examples) > 0)
        self._heaviest, self._seed, self._most = stage.heaviest, seed, stage.most_positives
        self._query_tokens, self._query_rows = query_tokens, query_rows
        self._passage_tokens = passage_tokens
        self._batch_size, self._per_query = batch_size, passages_per_query
        self._rank, self._world = rank, world
        self._random, self._further = random_negatives, further
        self._is_shown = self._shown_rows() if random_negatives else np.zeros(0, bool)
        self._alike = _alike(self._examples, query_tokens, query_rows)
        self.epoch = 0
        self._position = 0

    def __len__(self) -> int:
        return max(1, -(-(len(self._used) // self._world) // self._batch_size))

    def __iter__(self) -> Iterator[Batch]:
        if self._position >= len(self):  # the epoch before was read to its end
            self.epoch, self._position = self.epoch + 1, 0
        order = self._order()
        each = len(order) // self._world
        mine = order[self._rank : each * self._world : self._world] if each else order
        small, longer = divmod(len(mine), len(self))  # as np.array_split cuts, which makes all pieces at once
        numbers = range(self._position, len(self))
        starts = (number * small + min(number, longer) for number in numbers)
        sizes = (small + (number < longer) for number in numbers)
        made = (self._batch(mine[at : at + size].tolist()) for at, size in zip(starts, sizes, strict=True))
        for number, batch in zip(numbers, ahead(made, self._device), strict=True):
            self._position = number + 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self._position = state["epoch"], state["position"]

    def _order(self) -> np.ndarray:
        """Places of the examples in the order of the epoch."""
        names = (self._examples.query_ids[at] for at in self._used.tolist())
        drawn = b"".join(rank_of(self._seed, "order", str(self.epoch), name) for name in names)
        first, second = np.frombuffer(drawn, ">u8").reshape(-1, 2).T
        return self._used[np.lexsort((second, first))]

    def _batch(self, places: Sequence[int]) -> Batch:
        queries = [Shown(self._examples, at, self._passage_tokens) for at in places]
        chosen = [self._choose(query) for query in queries]
        shown = [[query.rows[d] for d in (*picked, *others)] for query, (picked, others) in zip(queries, chosen, strict=True)]
        drawn = [self._drawn(query.example) for query in queries]
        rows = list(dict.fromkeys(row for part in (shown, drawn) for of_query in part for row in of_query))
        useful = [_utilities(query) for query in queries]
        targets = [
            [query.rows[d] for d in (query.example.positives if self._most is None else picked)]
            for query, (picked, _) in zip(queries, chosen, strict=True)
        ]
        examples = [query.example for query in queries]
        return Batch(
            query_ids=[e.query_id for e in examples],
            queries=[self._query_tokens[self._query_rows[e.query_id]] for e in examples],
            passages=[self._passage_tokens[row] for row in rows],
            rows=torch.tensor(rows),
            shown=_padded([[*own, *more] for own, more in zip(shown, drawn, strict=True)], -2),
            targets=_padded(targets, -2),
            known=_padded([self._known(query) for query in queries], -2),
            judged=_padded([list(u) for u in useful], -2),
            utility=_padded([list(u.values()) for u in useful], torch.nan),
            row_weights=torch.tensor([e.weight / self._heaviest for e in examples], dtype=torch.float32),
            most=len(places) * (self._per_query + self._random),
            **self._further_texts(queries, chosen),
        )

    def _further_texts(self, queries: Sequence["Shown"], chosen: Sequence[tuple[list[str], list[str]]]) -> dict[str, Any]:
        """Variants of the queries, and the misleading texts of the first positive that each is shown with."""
        positives = [picked[0] if picked else None for picked, _ in chosen]
        misled = [-2 if d is None else query.rows[d] for query, d in zip(queries, positives, strict=True)]
        further = self._further
        misleading, of = further.misleading_of(positives) if further else ([], [])
        return {
            "misled": torch.tensor(misled),
            "misleading_of": torch.tensor(of, dtype=torch.int64),
            "misleading": misleading,
            "variants": further.variants_of([query.example.query_id for query in queries]) if further else [],
        }

    def _choose(self, query: "Shown") -> tuple[list[str], list[str]]:
        """Positives and negatives of one query, `passages_per_query` in all where there are as many. Copies of a passage take
        no place beside it."""
        example = query.example
        copied = {query.rows[d] for d in example.positives}
        positives = self._shuffled(query, "positive", example.positives)
        negatives = self._shuffled(query, "negative", [d for d in example.negatives if query.rows[d] not in copied])
        room = max(1, self._per_query - 1)
        positives = positives[: min(room, self._most or room)]
        return positives, negatives[: max(0, self._per_query - len(positives))]

    def _shuffled(self, query: "Shown", kind: str, doc_ids: Sequence[str]) -> list[str]:
        """Passages of a kind in an order of the epoch, of copies the first."""
        place, by_row = (str(self.epoch), query.example.query_id), dict[int, str]()
        for doc_id in sorted(doc_ids, key=lambda d: rank_of(self._seed, kind, *place, d)):
            by_row.setdefault(query.rows[doc_id], doc_id)
        return list(by_row.values())

    def _drawn(self, example: Example) -> list[int]:
        """Corpus rows of any passages; a copy of one that an example has stands at the row of that one."""
        if not self._random:
            return []
        draws = (
            rank_of(self._seed, "random", str(self.epoch), example.query_id, str(number)) for number in range(self._random)
        )
        rows = [int.from_bytes(draw[:8], "little") % len(self._passage_tokens) for draw in draws]
        firsts = self._passage_tokens.first_copies[rows].tolist()
        return [first if self._is_shown[first] else row for row, first in zip(rows, firsts, strict=True)]

    def _shown_rows(self) -> np.ndarray:
        """(corpus,) whether an example has the passage of a row, which is the first of its tokens."""
        found = np.zeros(len(self._passage_tokens), bool)
        for rows in (self._examples.columns.rows, self._examples.columns.ignored):
            found[self._passage_tokens.first_copies[rows]] = True
        return found

    def _known(self, query: "Shown") -> list[int]:
        """Passages that are never a negative of the query."""
        alike = [Shown(self._examples, at, self._passage_tokens) for at in self._alike.get(query.place, ())] or [query]
        return list({d: q.rows[d] for q in alike for d in q.example.positives + q.example.ignored}.values())


class Shown:
    """The example at a place, and where each of its passages stands: at the first row of its tokens."""

    def __init__(self, examples: Examples, place: int, tokens: Tokens) -> None:
        self.place, self.example = place, examples[place]
        rows = examples.rows_of(place)
        self.rows = dict(zip(rows, tokens.first_copies[list(rows.values())].tolist(), strict=True))


def _utilities(query: Shown) -> dict[int, float]:
    """By corpus row; of copies, that of the first, positives coming before negatives."""
    by_row: dict[int, float] = {}
    for doc_id, utility in query.example.utilities().items():
        by_row.setdefault(query.rows[doc_id], utility)
    return by_row


def _alike(examples: Examples, tokens: Tokens, rows: Mapping[str, int]) -> dict[int, list[int]]:
    """By place, the places of the examples of its tokens, where there are several."""
    first = tokens.first_copies[[rows[query_id] for query_id in examples.query_ids]]
    order = np.argsort(first, kind="stable")
    _, starts, counts = np.unique(first[order], return_index=True, return_counts=True)
    groups = [order[start : start + n].tolist() for start, n in zip(starts[counts > 1], counts[counts > 1], strict=True)]
    return {at: group for group in groups for at in group}


def _padded(rows: Sequence[Sequence[float]], filling: float) -> torch.Tensor:
    """(rows, most) of rows of different lengths."""
    widest = max(map(len, rows))
    kind = torch.int64 if isinstance(filling, int) else torch.float32
    return torch.tensor([[*row, *[filling] * (widest - len(row))] for row in rows], dtype=kind)
