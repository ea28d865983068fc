"""Pools of several rankings: of other sources of pools, and of run files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from omegaconf import OmegaConf

from uar.collections import Collection
from uar.collections.collection_runs import read_known, without_own
from uar.errors import DataError, UserError
from uar.pools.pool_source import PoolSource
from uar.retrievers.fusion.methods import of_each
from uar.retrievers.ranker import Ranker
from uar.storage.runs import run_files

TOP = 20  # passages of a run, as in the hybrid test of arXiv 2504.05220


@dataclass(frozen=True, kw_only=True)
class UnionPool(PoolSource):
    """The best of several sources by turns: the first of each, the second of each, and so on, each source as deep as its own
    `depth`, and at most `depth` passages in all. Of the sources' other options those of the union count."""

    sources: Mapping[str, PoolSource]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise UserError("candidates.sources is empty; add +candidates@candidates.sources.NAME=CHOICE")

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        sources = [replace(source, include_positive=self.include_positive) for source in self._plain.values()]
        found = [source.best(collection, query_ids) for source in sources]
        return {q: by_turns([ranking[q] for ranking in found]) for q in query_ids}

    def ranked_by(self, retriever: Ranker) -> PoolSource:
        return replace(self, sources={name: source.ranked_by(retriever) for name, source in self._plain.items()})

    @property
    def _plain(self) -> Mapping[str, PoolSource]:
        """The sources, as which Hydra hands configs over where dataclasses stand in a mapping."""
        return OmegaConf.to_object(self.sources) if OmegaConf.is_config(self.sources) else self.sources  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class RunsPool(PoolSource):
    """The best of several run files by turns, as in TREC's pools, and at most `depth` in all. `runs`: files, or files by name.
    `top`: passages of each, as a number, a list in the order of the files, or a mapping by name; 20 where it says nothing.
    UnknownQueries where a file has none of the split's queries."""

    runs: Any  # a config of a dataclass, which Hydra makes inside a union, knows no union of a list and a mapping
    top: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        depths = of_each(self.top, list(run_files(self.runs, "candidates.runs")), "candidates.top", TOP)
        if not all(isinstance(depth, int) and depth >= 1 for depth in depths):
            raise UserError(f"candidates.top={self.top}: whole numbers from 1 on are needed")

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        files = run_files(self.runs, "candidates.runs")
        found: list[dict[str, list[str]]] = []
        for path, top in zip(files.values(), of_each(self.top, list(files), "candidates.top", TOP), strict=True):
            run = without_own(collection, read_known(path, collection, list(collection.queries)))
            found.append({q: [d for d, _ in run[q][: int(top)]] for q in query_ids if q in run})
            for query_id, doc_ids in found[-1].items():
                odd = next((d for d in doc_ids if collection.corpus.row(d) < 0), None)
                if odd is not None:
                    raise DataError(path, f"passage {odd!r} of query {query_id!r} is not in {collection.reference}; remove it")
        return {q: by_turns([ranking.get(q, []) for ranking in found]) for q in query_ids}


def by_turns(rankings: Sequence[Sequence[str]]) -> list[str]:
    """The first of each ranking, then the second of each, and so on; each id once."""
    turns = zip_longest(*rankings)
    return list(dict.fromkeys(doc_id for turn in turns for doc_id in turn if doc_id is not None))
