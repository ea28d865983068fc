"""An annotation: pools that one annotator was shown, and what its chains concluded of each."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from uar.annotation.annotators import Annotator, Judgement
from uar.annotation.conclusions import Conclusions, Row, row_of
from uar.collections import Collection
from uar.launch.bars import bar, counted
from uar.llm.chains import Chains
from uar.llm.models import LLM
from uar.llm.pooled import PooledQuestions
from uar.llm.store.store import Store, state_of
from uar.pools.stored_pools import Pool, ids_of, question_hash
from uar.storage.files import cache_dir, digest
from uar.storage.locks import alone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Who is asked what, of whose texts. `models`: their names in records; none for an annotator that asks no model."""

    annotator: Annotator
    models: Sequence[str]
    collection: Collection

    @cached_property
    def key(self) -> str:
        return digest(self.annotator.asks(), list(self.models), self.collection.corpus.hash)


class Judgements(Mapping[str, list[Judgement]]):
    """Judgements of some questions, read from conclusions when they are asked for."""

    def __init__(self, collection: Collection, conclusions: Conclusions, query_ids: Iterable[str]) -> None:
        self._corpus, self._conclusions = collection.corpus, conclusions
        self._query_ids = dict.fromkeys(query_ids)

    def __len__(self) -> int:
        return len(self._query_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._query_ids)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._query_ids

    def __getitem__(self, query_id: str) -> list[Judgement]:
        if query_id not in self._query_ids:
            raise KeyError(query_id)
        row = self._conclusions.row(query_id)
        columns = (row[name] for name in ("row", "label", "grade", "score", "rank", "uncertainty", "logprobs", "votes"))
        return [
            Judgement(self._corpus.id(at), label, grade, score, rank, doubt, tuple(logprobs), votes=tuple(votes))
            for at, label, grade, score, rank, doubt, logprobs, votes in zip(*columns, strict=True)
        ]


@dataclass(frozen=True)
class Concluded:
    """`failed`: questions whose replies allow no judgement; `incomplete`: those of which replies are missing."""

    judgements: Judgements
    failed: list[str]
    incomplete: list[str]


@dataclass(frozen=True)
class Annotation:
    """`pools`: of questions of the collection, by query id. `name`: of a folder that is this annotation's alone. `about`: how
    it came about. `also`: folders of records that are read besides the store (shipped annotations)."""

    asked: Asked
    name: str
    pools: Mapping[str, Pool]
    about: Mapping[str, Any]
    store: Path
    also: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """The same for the same pools of the same annotator and models."""
        return digest(self.asked.key, {q: pool.hash() for q, pool in self.pools.items()})

    def keep(self, results: Mapping[str, Sequence[Judgement]], failed: Iterable[str]) -> None:
        """Keep what chains concluded of pools of this annotation."""
        ended = {**results, **dict.fromkeys(failed)}
        with alone(self._path.with_suffix(".lock")):
            conclusions = Conclusions(self._path)
            conclusions.with_rows(self._rows({q: ended[q] for q in self.pools if q in ended}), conclusions.seen)

    def concluded(self) -> Concluded:
        """Read what was concluded; of the other pools replay what the store holds, once for all processes."""
        conclusions = Conclusions(self._path)
        state = state_of([self.store, *self.also])
        if self._missing(conclusions) and conclusions.seen != state:
            with alone(self._path.with_suffix(".lock")):
                conclusions = Conclusions(self._path)
                if (missing := self._missing(conclusions)) and conclusions.seen != state:
                    conclusions = conclusions.with_rows(self._rows(self._replayed(missing)), state)
        incomplete = set(self._missing(conclusions))
        judged = conclusions.judged()
        good = [q for q in self.pools if q in judged and q not in incomplete]
        failed = [q for q in self.pools if q not in judged and q not in incomplete]
        return Concluded(Judgements(self.asked.collection, conclusions, good), failed, sorted(incomplete))

    def _missing(self, conclusions: Conclusions) -> list[str]:
        return [q for q, pool in self.pools.items() if not conclusions.holds(q, pool.hash())]

    def _replayed(self, query_ids: Sequence[str]) -> dict[str, Sequence[Judgement] | None]:
        log.info("Reading the replies of %d questions from the store", len(query_ids))
        collection = self.asked.collection
        questions = PooledQuestions(collection, {q: ids_of(collection, self.pools[q]) for q in query_ids})
        store, llms = Store(self.store, also=self.also), [LLM(model) for model in self.asked.models]
        chains = Chains(self.asked.annotator, store, collection.slug, llms)
        ended: dict[str, Sequence[Judgement] | None] = {}
        with bar("read replies from the store", len(query_ids), "questions") as shown:
            ended.update(counted(chains.run(questions), shown))
        return {**ended, **dict.fromkeys(chains.failed)}

    def _rows(self, ended: Mapping[str, Sequence[Judgement] | None]) -> Iterator[Row]:
        collection = self.asked.collection
        for query_id, judgements in ended.items():
            pool = self.pools[query_id]
            rows = dict(zip(ids_of(collection, pool), pool.rows.tolist(), strict=True))
            yield row_of(query_id, pool.hash(), judgements, rows)

    @property
    def _path(self) -> Path:
        """Beside the pools, or in the cache where the store is not there or somebody else's."""
        place = self.store if os.access(self.store, os.W_OK) else cache_dir() / "annotations"
        return place / "pools" / self.asked.key / self.name / "judgements" / f"{self.asked.annotator.reads()}.arrow"


def unchanged(collection: Collection, pools: Mapping[str, Pool]) -> dict[str, Pool]:
    """The pools of the collection's questions, as they are worded and answered today, in its order."""
    known = ((q, pools[q]) for q in collection.queries if q in pools)
    return {q: pool for q, pool in known if pool.question == question_hash(collection, q)}
