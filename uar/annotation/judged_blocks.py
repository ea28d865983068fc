"""Judgements of many questions as columns, a block at a time, whatever they are kept in."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from uar.annotation.conclusions import BLOCK, NUMBERS
from uar.annotation.judgement import Judged, Judgement


class JudgedBlock(NamedTuple):
    """sizes: (queries,) judgements of each; `columns`: `doc_id` and the names of `NUMBERS`, (pairs,)."""

    query_ids: Sequence[str]
    sizes: np.ndarray
    columns: Mapping[str, pa.Array]

    @property
    def query(self) -> np.ndarray:
        """(pairs,) places in `query_ids`."""
        return np.repeat(np.arange(len(self.query_ids)), self.sizes)


class JudgedColumns(Mapping[str, list[Judgement]]):
    """Judgements that are kept as columns, without reasons."""

    @abstractmethod
    def chosen(self, query_ids: Iterable[str]) -> "JudgedColumns":
        """Those of some of the questions, in that order."""

    @abstractmethod
    def blocks(self) -> Iterator[JudgedBlock]:
        """All of them, in their order."""


def of_queries(judged: Judged, query_ids: Iterable[str]) -> Judged:
    """The judgements of some of the questions, in that order."""
    return judged.chosen(query_ids) if isinstance(judged, JudgedColumns) else {q: judged[q] for q in query_ids}


def blocks_of(judged: Judged) -> Iterator[JudgedBlock]:
    """All judgements."""
    if isinstance(judged, JudgedColumns):
        yield from judged.blocks()
        return
    items = iter(judged.items())
    while block := list(islice(items, BLOCK)):
        flat = [j for _, judgements in block for j in judgements]
        numbers = {name: pa.array([getattr(j, name) for j in flat], kind) for name, kind in NUMBERS.items()}
        sizes = np.array([len(judgements) for _, judgements in block])
        yield JudgedBlock([q for q, _ in block], sizes, {"doc_id": pa.array([j.doc_id for j in flat], pa.string()), **numbers})
