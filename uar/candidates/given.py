"""Pools that come with the collection or stand in a file of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uar.candidates.pool import PoolSource
from uar.collections import Collection
from uar.collections.folder import read_candidates
from uar.errors import UserError


@dataclass(frozen=True)
class GivenPool(PoolSource):
    """`path`: a file of {query_id, candidates} lines; without it the collection's own candidates/<split>.jsonl."""

    path: str | None = None

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        if self.path:
            return read_candidates(Path(self.path), collection.queries, collection.corpus)
        if not collection.candidates:
            raise UserError(f"{collection.reference} has no candidates file; use candidates=bm25 or candidates.path=FILE")
        return collection.candidates
