"""Pools ranked by a bi-encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from uar.collections import Collection
from uar.pools.pool_source import PoolSource


@dataclass(frozen=True, kw_only=True)
class DensePool(PoolSource):
    """The `depth` best passages by the vectors of `retriever`, which is loaded when pools are asked for."""

    retriever: Callable[[], Any]  # gives a BiEncoder, whose module is imported by then alone

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        from uar.machine.precision import device
        from uar.retrievers.bi_encoder.dense import retrieve
        from uar.retrievers.bi_encoder.encoder import BiEncoder

        retriever: BiEncoder = self.retriever()
        run = retrieve(retriever.to(device()), collection, query_ids, self.depth)
        return {q: [d for d, _ in hits] for q, hits in run.items()}
