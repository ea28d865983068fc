"""A ranker that makes one ranking of several: of run files, and of other retrievers."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import replace

from uar.collections import Collection, open_collection
from uar.collections.collection_runs import without_own
from uar.errors import UserError
from uar.retrievers.fusion.learned_weights import learned_weights
from uar.retrievers.fusion.methods import K, Values, fuse, of_each
from uar.retrievers.ranker import Pools, Ranker, Search
from uar.retrievers.run_file import RunFile
from uar.retrievers.session import Session
from uar.storage.files import digest
from uar.storage.runs import Run, run_files

log = logging.getLogger(__name__)


class Fusion(Ranker):
    """What `retriever=fusion` instantiates; see `fuse` for the methods.

    `runs`: files by name, or a list of files. `retrievers`: rankers by name. `weights`: by name, or a list in the order of
    runs and then retrievers; 1 where none is given. `learn_on`: reference of a split with judgements from which the weights
    are learned instead, see `learned_weights`, with lists as deep as those that are then fused.
    """

    def __init__(
        self,
        runs: Mapping[str, str] | Sequence[str] | None = None,
        retrievers: Mapping[str, Ranker] | None = None,
        method: str = "rrf",
        weights: Values = None,
        k: int = K,
        learn_on: str | None = None,
    ) -> None:
        files = run_files(runs, "retriever.runs") if runs else {}
        names = [*files, *(retrievers or {})]
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(
                f"fusion of {', '.join(names) or 'nothing'}: at least two names that differ are needed; give "
                "'retriever.runs=[A.trec,B.trec]' or add +retriever@retriever.retrievers.NAME=CHOICE"
            )
        self._rankers: dict[str, Ranker] = {name: RunFile(path) for name, path in files.items()} | dict(retrievers or {})
        if learn_on is not None and weights is not None:
            raise UserError("retriever.weights and retriever.learn_on: weights are given or learned; leave one of them out")
        self._weights = of_each(weights, names, "retriever.weights", 1.0)
        self._judged = None if learn_on is None else _judged(learn_on)
        self._learned: dict[tuple[int, str], list[float]] = {}  # by depth and language
        self._session: Session | None = None
        self._part = ""
        self._method, self._k = method, k
        fuse([], method, None, k)  # refuses options before anything is retrieved
        if method != "rrf" and k != K:
            raise UserError(f"retriever.k={k} is of retriever.method=rrf; set this too, or leave k {K}")
        self.name = f"{method}({', '.join(names)})"

    @property
    def searches(self) -> bool:
        return all(ranker.searches for ranker in self._rankers.values())

    @property
    def fuses(self) -> bool:
        return True

    @property
    def lengths(self) -> dict[str, int]:
        return {f"{of}.{name}": n for of, ranker in self._rankers.items() for name, n in ranker.lengths.items()}

    def with_room(self, query_length: int | None) -> "Fusion":
        fusion = copy(self)
        read_whole = {name for name, ranker in self._rankers.items() if not ranker.lengths}
        fusion._rankers = {
            name: ranker if name in read_whole else ranker.with_room(query_length) for name, ranker in self._rankers.items()
        }
        return fusion

    def key(self, collection: Collection) -> str | None:
        keys = {name: ranker.key(collection) for name, ranker in self._rankers.items()}
        if self._judged is None:
            return None if None in keys.values() else digest(self._method, self._k, self._weights, keys)
        learned = {name: ranker.key(self._judged) for name, ranker in self._rankers.items()}
        missing = None in keys.values() or None in learned.values()
        return None if missing else digest(self._method, self._k, self._judged.hash, learned, keys)

    @property
    def search_options(self) -> frozenset[str]:
        return frozenset().union(*(ranker.search_options for ranker in self._rankers.values()))

    @property
    def is_timed(self) -> bool:
        return all(ranker.is_timed for ranker in self._rankers.values())

    def reach(self, collection: Collection, depth: int) -> int:
        return min(depth, sum(ranker.reach(collection, depth) for ranker in self._rankers.values()))

    def check_search(self, search: Search, collection: Collection) -> None:
        for ranker in self._rankers.values():
            ranker.check_search(search, collection)

    def opened(self, session: Session, part: str = "") -> "Fusion":
        """With each of its rankers opened under a name of its own, so that each has its own vectors."""
        fusion = copy(self)
        fusion._rankers = {
            name: ranker.opened(session, f"{part}/{name}" if part else name) for name, ranker in self._rankers.items()
        }
        fusion._session, fusion._part = session, part
        return fusion

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        """The `depth` best of what each ranker has among its own `depth` best; run files are read whole."""
        weights = self._weights_for(collection, depth)
        runs = [ranker.rank(collection, query_ids, depth) for ranker in self._rankers.values()]
        return fuse(runs, self._method, weights, self._k, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        """Fused from the rankings of each pool. What no ranker has a score for is left out."""
        weights = self._weights_for(collection, max(map(len, pools.values()), default=1))
        runs = [ranker.score(collection, pools) for ranker in self._rankers.values()]
        return fuse(runs, self._method, weights, self._k)

    def _weights_for(self, collection: Collection, depth: int) -> list[float]:
        """Those that were given, or are learned from lists so deep, in the collection's language. UserError where that would
        be on what is scored."""
        judged = self._judged
        if judged is None:
            return self._weights
        if judged.judged_as(collection):
            raise UserError(
                f"retriever.learn_on={judged.reference}: weights that were learned there say nothing of its scores; learn "
                "them on another split, such as dev"
            )
        language = collection.corpus.language
        if (depth, language) not in self._learned:
            with self._session.preparing() if self._session else nullcontext():
                judged = replace(judged, corpus=judged.corpus.in_language(language))
                self._learned[depth, language] = self._learn(judged, depth)
        weights = self._learned[depth, language]
        if self._session:
            named = zip(self._rankers, weights, strict=True)
            self._session.note(self._part, {f"weight of {name}": weight for name, weight in named})
        return weights

    def _learn(self, judged: Collection, depth: int) -> list[float]:
        query_ids = [q for q in judged.queries if judged.positives(q)]
        runs = [without_own(judged, ranker.rank(judged, query_ids, depth)) for ranker in self._rankers.values()]
        found = learned_weights(runs, judged, self._method, self._k)
        shown = ", ".join(
            f"{name} {weight:.2f} (alone {alone:.4f})"
            for name, weight, alone in zip(self._rankers, found.weights, found.alone, strict=True)
        )
        log.info(
            "Weights by nDCG@10 of %d questions of %s: %s; fused %.4f, with equal weights %.4f",
            len(query_ids), judged.reference, shown, found.value, found.equal,
        )  # fmt: skip
        written = sum(judged.origin_of(q) == "generated" for q in query_ids)
        if written:
            log.warning(
                "%d of these questions were written by an LLM, and kept where a search found their passage: that search gets "
                "too much weight; leave retriever.learn_on null, or name a split that people judged", written,
            )  # fmt: skip
        return found.weights


def _judged(reference: str) -> Collection:
    collection = open_collection(reference)
    if not any(map(collection.positives, collection.queries)):
        raise UserError(f"retriever.learn_on={reference}: no question with a positive judgement; name a split that has some")
    return collection
