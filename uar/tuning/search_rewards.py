"""Rewards of texts that are written for queries: what is found with them, and what a frozen reader answers from it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra

from uar.collections import Collection
from uar.collections.answer_match import exact_match, f1, hold_answer
from uar.errors import UserError
from uar.evaluation.measures import parsed, per_query
from uar.evaluation.rag.reader import Asking
from uar.evaluation.rag.shown_passages import show
from uar.expansion.expanded import Expanded
from uar.expansion.passage_texts import with_text
from uar.llm.models import LLM, identity_of
from uar.llm.store.store import Store
from uar.retrievers.session import Session
from uar.storage.runs import Run
from uar.tuning.query_task import QueryTask
from uar.tuning.reward import RankingReward, Reward, no_gold
from uar.tuning.task import Case, Rolled, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """Texts by query id, in the place of what an LLM would be asked for; see `ByLLM`."""

    texts: Mapping[str, str]
    join: str
    repeat: int | None
    query_length: int | None = None
    name: str = "replies"

    def written(self, collection: Collection) -> dict[str, str]:
        return {q: self.texts[q] for q in collection.queries if q in self.texts}

    def opened(self, session: Session) -> None:
        """It needs nothing of a session."""


@dataclass(frozen=True)
class SearchReward(RankingReward):
    """`retriever` searches with each reply, joined to its query as the task says."""

    def found(self, task: Task, collection: Collection, rolled: Sequence[Rolled], depth: int) -> tuple[Collection, Run]:
        """The `depth` results of each reply, as those of a query of its own, see `with_text` for its id; and the collection
        with these queries, in the order of the replies, and the judgements of theirs."""
        if not isinstance(task, QueryTask):
            raise TypeError(type(task).__name__)
        ids = {with_text(one.case.question.id, at): one.case.question.id for at, one in enumerate(rolled)}
        queries = {own: replace(collection.queries[q], id=own) for own, q in ids.items()}
        qrels = {own: collection.qrels[q] for own, q in ids.items() if q in collection.qrels}
        asked = replace(collection, queries=queries, qrels=qrels)
        texts = Written(
            {own: one.value for own, one in zip(ids, rolled, strict=True)}, task.join, task.repeat, task.query_length
        )
        ranker = Expanded(self.retriever, texts).opened(self.session)
        run = ranker.rank(asked, list(ids), depth + collection.drop_own)
        if collection.drop_own:
            run = {own: [hit for hit in hits if hit[0] != ids[own]][:depth] for own, hits in run.items()}
        return asked, run

    def _check_task(self, name: str, task: Task) -> None:
        if not isinstance(task, QueryTask):
            raise UserError(f"reward={name} searches with replies; it is for task=pseudo_document, rewrite and keywords")


@dataclass(frozen=True)
class RetrievalReward(SearchReward):
    """`measure`, as ir_measures names it, of the `depth` best results of a reply."""

    measure: str = "nDCG@10"
    depth: int = 100

    def __post_init__(self) -> None:
        (measure,) = parsed([self.measure]).values()
        if measure.params.get("cutoff", 0) > self.depth:
            raise UserError(f"reward.measure={self.measure} looks deeper than reward.depth={self.depth}; give a larger depth")

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        self._check_task("retrieval", task)
        if not any(collection.positives(case.question.id) for case in cases):
            raise no_gold("retrieval", collection, "judgements", "give a split with qrels")

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        asked, run = self.found(task, collection, rolled, self.depth)
        found = {q: value for q, _, value in per_query(asked, run, [self.measure], list(asked.queries))}
        return [found.get(own, 0.0) for own in asked.queries]


@dataclass(frozen=True)
class FrozenReaderReward(SearchReward):
    """EM + `f1` · F1 of what a reader that does not learn answers from the `top_k` best results of a reply, and `hit` where
    one of them holds a gold answer (Rewrite-Retrieve-Read, arXiv 2305.14283, section 3.2). Its replies go through the store.
    `retriever`, `reader`, `llm`: configs; the model is loaded when the reward is opened."""

    reader: Any
    llm: Mapping[str, Any]
    store: str
    top_k: int = 5
    f1: float = 1.0
    hit: float = 1.0

    def __post_init__(self) -> None:
        for name in ("retriever", "reader"):
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, hydra.utils.instantiate(getattr(self, name), _convert_="all"))

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        self._check_task("frozen_reader", task)
        if not any(case.question.answers for case in cases):
            raise no_gold("frozen_reader", collection, "gold answers", "give dataset.answers=FILE, or reward=retrieval")
        if without := sum(not case.question.answers for case in cases):
            line = "reward=frozen_reader: %d of %d questions have no gold answers; each reply to them is worth nothing"
            log.warning(line, without, len(cases))

    def opened(self, session: Session) -> Reward:
        model = hydra.utils.instantiate(self.llm, _convert_="all")
        session.at_end(model.close)
        opened = super().opened(session)
        object.__setattr__(opened, "_model", LLM(identity_of(self.llm), model))
        return opened

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        asked, run = self.found(task, collection, rolled, self.top_k)
        ids = {q: [d for d, _ in hits] for q, hits in run.items()}
        shown = show(asked, {q: ids.get(q, []) for q in asked.queries}, "rank", self.reader.shown, {})
        store = Store(Path(self.store))
        try:
            answers = Asking(asked, self._llm, store).answers(self.reader, shown)
        finally:
            store.close()
        values = []
        for q, one in zip(asked.queries, rolled, strict=True):
            gold = one.case.question.answers
            held = any(hold_answer(tuple(shown[q].values()), gold))
            text = answers[q].text
            values.append(exact_match(text, gold) + self.f1 * f1(text, gold) + self.hit * held)
        return values

    @property
    def _llm(self) -> LLM:
        model: LLM = self.__dict__["_model"]
        return model
