"""An annotation: pools that one annotator was shown, and what its chains concluded of each."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from uar.annotation.annotators import Annotator, Judgement
from uar.annotation.concluded_judgements import Judgements
from uar.annotation.conclusions import Conclusions, Ended, batches_of
from uar.annotation.own_judgements import OwnJudgements
from uar.collections import Collection
from uar.launch.bars import bar, counted
from uar.llm.chains import Chains
from uar.llm.models import LLM
from uar.llm.pooled import PooledQuestions
from uar.llm.store.store import Store, state_of
from uar.pools.stored_pools import PoolTable, ShownIds, StoredPools, ids_of, question_hash
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

    @cached_property
    def own(self) -> OwnJudgements | None:
        """See `Annotator.own`."""
        return self.annotator.own(self.collection)


@dataclass(frozen=True)
class Concluded:
    """`failed`: questions whose replies allow no judgement; `incomplete`: those of which replies are missing."""

    judgements: Judgements
    failed: list[str]
    incomplete: list[str]


@dataclass(frozen=True)
class Annotation:
    """`pools`: of questions of the collection, by query id. `name`: of a folder that is this annotation's alone. `about`: how
    it came about. `also`: folders of records that are read besides the store (shipped annotations). `besides`: the questions
    that were asked for calibration or a gate alone."""

    asked: Asked
    name: str
    pools: PoolTable
    about: Mapping[str, Any]
    store: Path
    also: tuple[Path, ...] = ()
    besides: frozenset[str] = frozenset()

    @property
    def wanted(self) -> list[str]:
        """The questions whose labels are wanted."""
        return [q for q in self.pools if q not in self.besides]

    @property
    def key(self) -> str:
        """The same for the same pools of the same annotator and models, of which the same labels are wanted."""
        pools = dict(zip(self.pools, self.pools.hashes.tolist(), strict=True))
        return digest(self.asked.key, pools, *([sorted(self.besides)] if self.besides else []))

    def commands(self, query_ids: Sequence[str]) -> list[str]:
        """Of the runs that brought the pools of these questions, which given again ask what is missing of them."""
        names = self.about.get("union", [self.name])
        folders = [place / "pools" / self.asked.key / name for place in (self.store, *self.also) for name in names]
        worded = {q: self.pools[q].question for q in query_ids}
        return list(dict.fromkeys(command for folder in folders for command in StoredPools(folder).commands(worded)))

    def keep(self, results: Mapping[str, Sequence[Judgement]], failed: Iterable[str]) -> None:
        """Keep what chains concluded of pools of this annotation."""
        ended = ((q, results.get(q)) for q in chain(results, failed) if q in self.pools)
        with alone(self._path.with_suffix(".lock")):
            conclusions = Conclusions(self._path)
            conclusions.add(batches_of(self._ended(ended))).joined(conclusions.seen)

    def concluded(self) -> Concluded:
        """Read what was concluded; of the other pools, and of those that have passages without a judgement, conclude what the
        store, or the annotator itself, says by now, once for all processes."""
        conclusions = Conclusions(self._path)
        if self._partial(conclusions) and conclusions.seen != (state := self._state()):
            with alone(self._path.with_suffix(".lock")):
                conclusions = Conclusions(self._path)
                if (partial := self._partial(conclusions)) and conclusions.seen != state:
                    conclusions = conclusions.add(self._batches(partial)).joined(state)
        held, judged, _ = conclusions.of(self.pools)
        ended = list(zip(self.pools, held.tolist(), judged.tolist(), strict=True))
        good = [q for q, known, labelled in ended if known and labelled]
        failed = [q for q, known, labelled in ended if known and not labelled]
        incomplete = sorted(q for q, known, _ in ended if not known)
        return Concluded(Judgements(self.asked.collection.corpus, conclusions, good), failed, incomplete)

    def _state(self) -> str:
        """Of the pools, and of the records where they were asked about: splits of one corpus share a file of conclusions."""
        return self.key if self.asked.own else digest(self.key, state_of([self.store, *self.also]))

    def _partial(self, conclusions: Conclusions) -> list[str]:
        held, _, sizes = conclusions.of(self.pools)
        whole = held & (sizes == self.pools.sizes())
        return [q for q, known in zip(self.pools, whole.tolist(), strict=True) if not known]

    def _batches(self, query_ids: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self.asked.own:
            return self.asked.own.batches(self.asked.collection.corpus, query_ids)
        return batches_of(self._ended(self._replayed(query_ids)))

    def _replayed(self, query_ids: Sequence[str]) -> Iterator[tuple[str, Sequence[Judgement] | None]]:
        """Of the questions that end, what their chains return."""
        log.info("Reading the replies of %d questions from the store", len(query_ids))
        questions = PooledQuestions(self.asked.collection, ShownIds(self.asked.collection, self.pools.chosen(query_ids)))
        store, llms = Store(self.store, also=self.also), [LLM(model) for model in self.asked.models]
        chains = Chains(self.asked.annotator, store, self.asked.collection.slug, llms)
        with bar("read replies from the store", len(query_ids), "questions") as shown:
            yield from counted(chains.run(questions), shown)
        yield from ((query_id, None) for query_id in chains.failed)

    def _ended(self, ended: Iterable[tuple[str, Sequence[Judgement] | None]]) -> Iterator[Ended]:
        for query_id, judgements in ended:
            pool = self.pools[query_id]
            rows = dict(zip(ids_of(self.asked.collection, pool), pool.rows.tolist(), strict=True))
            yield Ended(query_id, pool.hash(), judgements, rows)

    @property
    def _path(self) -> Path:
        """Beside the pools, or in the cache where the store is not there or somebody else's."""
        place = self.store if os.access(self.store, os.W_OK) else cache_dir() / "annotations"
        return place / "pools" / self.asked.key / self.name / "judgements" / f"{self.asked.annotator.reads()}.arrow"


def unchanged(collection: Collection, stored: StoredPools) -> PoolTable:
    """The pools of the collection's questions, as they are worded and answered today, in its order. The log says how many
    others have pools."""
    worded = {q: question_hash(collection, q) for q in collection.queries}
    pools = stored.read(worded)
    if 0 < len(pools) < len(worded) and (others := sum(q in worded for q in stored.read() if q not in pools)):
        line = "%s: %d annotated questions have another text, image or other answers today and are left out; annotate again"
        log.warning(line, collection.reference, others)
    return pools.chosen([q for q in collection.queries if q in pools])
