"""A ranker that searches with what an LLM wrote for the queries."""

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Protocol

import hydra

from uar.collections import Collection
from uar.errors import UserError
from uar.expansion.query_texts import QueryWriter, with_texts
from uar.llm.one_model import OneModel
from uar.llm.pooled import PooledQuestions
from uar.retrievers.fusion.methods import fuse
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.session import Session
from uar.storage.runs import Run

log = logging.getLogger(__name__)
MEAN = "mean"
JOINS = ("append", "replace", "fuse", MEAN)
REPEATED = 5  # times that the query stands before what was written, for BM25 (query2doc, arXiv 2303.07678)


class Expansion(Protocol):
    """What is written for queries, and how it joins them; see `ByLLM`."""

    @property
    def name(self) -> str: ...

    @property
    def join(self) -> str: ...

    @property
    def repeat(self) -> int | None: ...

    def written(self, collection: Collection) -> dict[str, str]: ...

    def opened(self, session: Session) -> None: ...


class ByLLM:
    """What `expand=NAME` instantiates. `writer`, `llm`: configs; see `OneModel` for the model and the options below it.

    `join`: the text that is searched is the query and then what was written (`append`, the query `repeat` times; None is 5 for
    BM25 and 1 for others), or what was written alone (`replace`). `fuse` ranks with both, and adds up reciprocal ranks. `mean`
    searches with the mean of both vectors (as HyDE, arXiv 2212.10496). A query for which nothing was written is searched as it
    is.
    """

    def __init__(
        self,
        writer: Mapping[str, Any],
        llm: Mapping[str, Any],
        store: str,
        join: str = "append",
        repeat: int | None = None,
        max_failure_rate: float = 0.05,
        retry_failures: Sequence[str] = (),
        price: Mapping[str, Any] | None = None,
    ) -> None:
        if join not in JOINS:
            raise UserError(f"expand.join={join!r}; allowed: {', '.join(JOINS)}")
        if repeat is not None and (repeat < 1 or join != "append"):
            raise UserError(f"expand.repeat={repeat}: at least 1 is needed, with expand.join=append alone; else leave it null")
        self.writer: QueryWriter = hydra.utils.instantiate(writer, _convert_="all")
        self.join, self.repeat = join, repeat
        self.model = OneModel("expand", llm, store, max_failure_rate, retry_failures, price)
        self.name = f"{self.writer.prompt.name} of {self.model.name} ({join})"

    def opened(self, session: Session) -> None:
        """For the length of a session, with which the model closes."""
        self.model.opened(session)

    def written(self, collection: Collection) -> dict[str, str]:
        """What the LLM wrote, by query; nothing of those whose call failed, which are counted."""
        queries = collection.queries
        work = self.model.ask(self.writer, PooledQuestions(collection, dict.fromkeys(queries, ())), "expand", self.name)
        if work.failed:
            line = "%s: calls failed: %d of %d questions are searched as they are"
            log.warning(line, collection.slug, len(work.failed), len(queries))
        return dict(work.results)


class Expanded(Ranker):
    """`ranker`, which is given other texts of the queries. What is scored and re-ranked stays the question. It has no `key`,
    since a call that failed is asked again, and then the run is another one."""

    def __init__(self, ranker: Ranker, expansion: Expansion) -> None:
        if not ranker.searches:
            raise UserError(f"expand: {ranker.name} is there already, and searches nothing; give model=DIR or retriever=NAME")
        if expansion.join == MEAN:
            from uar.retrievers.bi_encoder.encoder import BiEncoder  # brings torch, which BM25 has no use for

            if not isinstance(ranker, BiEncoder):
                raise UserError(f"expand.join=mean: {ranker.name} has no vector a query; allowed: {', '.join(JOINS[:-1])}")
        self._ranker, self._expansion = ranker, expansion
        self.name = f"{ranker.name}, queries expanded by {expansion.name}"

    @property
    def lengths(self) -> dict[str, int]:
        return self._ranker.lengths

    def reach(self, collection: Collection, depth: int) -> int:
        return self._ranker.reach(collection, depth)

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
        """What a bi-encoder is opened as."""
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
    """`ranker` as the config group `expand` says: given other texts of the queries, or as it is for `off`."""
    if not settings.get("_target_"):
        return ranker
    return Expanded(ranker, hydra.utils.instantiate(settings, _convert_="all"))
