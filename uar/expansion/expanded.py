"""A ranker that searches with what an LLM wrote for the queries."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol

import hydra

from uar.collections import Collection
from uar.errors import UserError
from uar.expansion.by_llm import JOINS, MEAN, ByLLM, refuse_idle
from uar.expansion.expanded_passages import ExpandedPassages
from uar.expansion.query_texts import with_texts
from uar.retrievers.fusion.methods import fuse
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.session import Session
from uar.retrievers.wrapped_ranker import WrappedRanker
from uar.storage.runs import Run

REPEATED = 5  # times that the query stands before what was written, for BM25 (query2doc, arXiv 2303.07678)


class Expansion(Protocol):
    """What is written for queries, and how it joins them; see `ByLLM`."""

    @property
    def name(self) -> str: ...

    @property
    def join(self) -> str: ...

    @property
    def repeat(self) -> int | None: ...

    @property
    def query_length(self) -> int | None: ...

    def written(self, collection: Collection) -> dict[str, str]: ...

    def opened(self, session: Session) -> None: ...


class Expanded(WrappedRanker):
    """`ranker`, which is given other texts of the queries. What is scored and re-ranked stays the question. It has no `key`,
    since a call that failed is asked again, and then the run is another one."""

    def __init__(self, ranker: Ranker, expansion: Expansion) -> None:
        if expansion.join == MEAN:
            from uar.retrievers.dense import DenseEncoder  # brings torch, which BM25 has no use for

            if not isinstance(ranker, DenseEncoder):
                raise UserError(f"expand.join=mean: {ranker.name} has no vector a query; allowed: {', '.join(JOINS[:-1])}")
        roomy = ranker.with_room(expansion.query_length)
        longer = sorted({n for name, n in roomy.lengths.items() if n != ranker.lengths[name]})
        room = f", of which {' and '.join(map(str, longer))} tokens are read" if longer else ""
        super().__init__(roomy, f"{ranker.name}, queries expanded by {expansion.name}{room}")
        self._expansion, self._lengths = expansion, ranker.lengths

    @property
    def lengths(self) -> dict[str, int]:
        """Those of a question as it is, so that runs with and without what was written are compared."""
        return self._lengths

    def with_room(self, query_length: int | None) -> "Expanded":
        """It has what `expand.query_length` gives it."""
        return self

    @property
    def is_timed(self) -> bool:
        return False

    def opened(self, session: Session, part: str = "") -> "Expanded":
        other = copy(self)
        other._ranker = self._ranker.opened(session, part)
        self._expansion.opened(session)
        return other

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        searched = self._searched(collection, query_ids)
        if self._expansion.join == MEAN:
            return self._dense.rank_by_mean(searched, query_ids, depth)
        found = [self._ranker.rank(texts, query_ids, depth) for texts in searched]
        return fuse(found, depth=depth) if len(found) > 1 else found[0]

    def score(self, collection: Collection, pools: Pools) -> Run:
        searched = self._searched(collection, list(pools))
        if self._expansion.join == MEAN:
            return self._dense.score_by_mean(searched, pools)
        found = [self._ranker.score(texts, pools) for texts in searched]
        return fuse(found) if len(found) > 1 else found[0]

    @property
    def _dense(self) -> Any:
        """What a `DenseEncoder` is opened as."""
        return self._ranker

    def _searched(self, collection: Collection, query_ids: Sequence[str]) -> list[Collection]:
        """The queries under each of the texts that are searched."""
        texts = {q: collection.queries[q].text for q in query_ids}
        own = with_texts(collection, texts)
        written, join = self._expansion.written(own), self._expansion.join
        if join == "append":
            times = self._expansion.repeat or (1 if self._ranker.lengths else REPEATED)
            longer = {q: " ".join([text] * times + [written[q]]) if q in written else text for q, text in texts.items()}
            return [with_texts(own, longer)]
        other = with_texts(own, {**texts, **written})
        return [other] if join == "replace" else [own, other]


def expanded(ranker: Ranker, settings: Any) -> Ranker:
    """`ranker` as the config group `expand` says: given other texts of the queries, of the passages, or of both; as it is
    where nothing is written. UserError for options of what is not written."""
    if not settings.get("writer") and settings.get("documents") is None:
        refuse_idle(settings)
        return ranker
    return expanded_by(ranker, hydra.utils.instantiate(settings, _convert_="all"))


def expanded_by(ranker: Ranker, expansion: ByLLM) -> Ranker:
    """`ranker`, given what `expansion` has written."""
    if not ranker.searches:
        raise UserError(f"expand: {ranker.name} is there already, and searches nothing; give model=DIR or retriever=NAME")
    if expansion.writer:
        ranker = Expanded(ranker, expansion)
    return ExpandedPassages(ranker, expansion) if expansion.document_writer else ranker
