"""How the run of a ranker that is scored is made, and what it depends on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.errors import UserError
from uar.expansion import expanded
from uar.reranking import reranked
from uar.retrievers.ranker import Ranker
from uar.retrievers.search_options import changed
from uar.retrievers.session import Session
from uar.storage.files import digest
from uar.storage.runs import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrieving:
    """`search`: the options of the config group of that name; None where no vectors are searched. `depth`: results a query."""

    search: Mapping[str, Any] | None
    depth: int

    def session(self, folder: Path | None = None) -> Session:
        return Session(self._open_search, folder=folder)

    def check(self, collection: Collection, ranker: Ranker) -> None:
        """UserError where the ranker's vectors of the collection cannot be searched as the options say."""
        if self.search is not None and ranker.lengths:  # else torch is not imported for it
            ranker.check_search(self._open_search(), collection)

    def _open_search(self) -> Any:
        return hydra.utils.instantiate(self.search, _convert_="all")

    def run(self, collection: Collection, ranker: Ranker, query_ids: Sequence[str]) -> Run:
        return without_own(collection, ranker.rank(collection, query_ids, self.depth))

    def refuse_unread(self, ranker: Ranker) -> None:
        """UserError where `search` says what the ranker does not read."""
        unread = {name: v for name, v in changed(self.search or {}).items() if name not in ranker.search_options}
        if unread:
            given = ", ".join(f"search.{name}={value}" for name, value in unread.items())
            read = ", ".join(sorted(ranker.search_options)) or "none"
            raise UserError(f"{given}: {ranker.name} does not read this (of search: {read}); leave it as search=exact has it")

    def measured(self, ranker: Ranker) -> dict[str, object]:
        """What scores depend on besides the model and the collection."""
        facts: dict[str, object] = {"retrieval_depth": self.depth} if ranker.cuts else {}
        if ranker.lengths:
            from uar.machine.precision import resolve_dtype  # brings torch, which BM25 has no use for

            precision = (self.search or {}).get("precision") or "auto"
            facts["precision"] = str(resolve_dtype(precision)).removeprefix("torch.")
        return {**facts, **ranker.lengths}

    def key(self, collection: Collection, ranker: Ranker) -> str | None:
        """Of all that makes the ranker's run of a collection; None where the ranker does not say."""
        own = ranker.key(collection)
        return None if own is None else digest(own, collection.hash, self.search, self.measured(ranker))


def as_configured(retriever: Ranker, cfg: Any) -> Ranker:
    """The retriever with what the config groups `expand` and `rerank` say. UserError for what does not go together."""
    return reranked(expanded(retriever, cfg.expand), cfg.rerank, cfg.retrieval_depth)


def scored_queries(collection: Collection) -> list[str]:
    """Those with a positive; UserError where there is none."""
    query_ids = [q for q in collection.queries if collection.positives(q)]
    if not query_ids:
        raise UserError(
            f"{collection.reference}: no question with a positive judgement, so there is nothing to score; have some judged, "
            "or leave it out (a training: 'dataset.test=[]')"
        )
    return query_ids
