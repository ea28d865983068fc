"""Retrieval and re-ranking by the representations that a chat model gives, in a session."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.launch.bars import bar
from uar.machine.precision import resolve_dtype
from uar.retrievers.fusion.methods import fuse
from uar.retrievers.impact_search import save_impacts, search_impacts
from uar.retrievers.pool_blocks import pool_blocks
from uar.retrievers.promptreps.representations import Representations, Reps
from uar.retrievers.ranker import Pools, Ranker, rows_of, run_of
from uar.retrievers.session import Session
from uar.retrievers.shard_folder import encoding, filling, rows_of_shard
from uar.storage.files import digest, write_array
from uar.storage.ordering import best_first
from uar.storage.runs import Run

PARTS = ("dense", "sparse")
SHARD = 1_024  # passages a file: a killed command loses no more
SCORED = 1_024  # passages of pools encoded at a time


class PromptRepsSearch(Ranker):
    """`weights`: of each part that counts, by name; `list_depth`: results of each that are fused."""

    def __init__(
        self, reps: Representations, weights: Mapping[str, float], list_depth: int, session: Session, part: str = ""
    ) -> None:
        self._reps, self._weights, self._list_depth = reps, dict(weights), list_depth
        self._session, self._part = session, part
        self.name = f"promptreps({reps.name}, {'+'.join(weights)})"

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        search = self._session.search
        search.warn_of_processes(self.name)
        search.check(len(collection.corpus), self._reps.dim(search.precision))
        with self._session.preparing():
            files = self._encoded(collection)
        dense, sparse = self._encode(collection, [collection.queries[q].text for q in query_ids], "query")
        self._reps.tell_cut()
        deep = min(max(depth, self._list_depth) + collection.drop_own, len(collection.corpus))
        runs = []
        if "dense" in self._weights:
            found = search.best(dense, files["dense"], deep, collection.corpus.id_ranks, unit=True)
            self._session.note(self._part, search.facts)
            runs.append(run_of(collection, query_ids, *found))
        if "sparse" in self._weights:
            found = search_impacts(sparse, files["sparse"], deep, collection.corpus.id_ranks)
            self._session.note(f"{self._part} sparse".strip(), {"bytes_per_passage": _bytes(files["sparse"], collection)})
            runs.append(run_of(collection, query_ids, *found))
        return self._fused([without_own(collection, run) for run in runs], depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        """A passage of several pools is encoded once."""
        rows = rows_of(collection, pools)
        asked = self._encode(collection, [collection.queries[q].text for q in pools], "query") if pools else None
        scores = [{q: np.zeros(len(own)) for q, own in rows.items()} for _ in self._weights]
        number = {q: at for at, q in enumerate(pools)}
        with bar("encode passages", None, "passages") as shown:
            for block, shared in pool_blocks(rows, SCORED):
                passages = self._encode(collection, list(collection.corpus.texts(block)), "passage")
                for part, found in zip(scores, self._products(asked, passages), strict=True):  # type: ignore[arg-type]
                    for query_id, at, places in shared:
                        part[query_id][at] = found[number[query_id], places]
                shown.advance(len(block))
        self._reps.tell_cut()
        runs = [{q: best_first(zip(pool, part[q].tolist(), strict=True)) for q, pool in pools.items()} for part in scores]
        return self._fused(runs, None)

    def _products(self, queries: Reps, passages: Reps) -> list[np.ndarray]:
        """(queries, passages) scores of each part; dense ones of vectors in fp16, as a search has them."""
        dense = queries[0] @ passages[0].astype(np.float16).astype(np.float32).T
        sparse = (queries[1].astype(np.float64) @ passages[1].astype(np.float64).T).toarray()
        return [{"dense": dense, "sparse": sparse}[part] for part in self._weights]

    def _fused(self, runs: Sequence[Run], depth: int | None) -> Run:
        """A part alone keeps its scores."""
        if len(runs) == 1:
            return {q: hits[:depth] for q, hits in runs[0].items()}
        return fuse(runs, "weighted", list(self._weights.values()), depth=depth)

    def _encode(self, collection: Collection, texts: Sequence[str], role: str) -> Reps:
        return self._reps.encode(texts, role, collection.corpus.language, self._session.search.precision)

    def _encoded(self, collection: Collection) -> dict[str, list[Path]]:
        """Files of the corpus, by part; both parts are made in one pass, whichever count."""
        corpus, precision = collection.corpus, str(resolve_dtype(self._session.search.precision))
        made = {**self._reps.made_of(collection), "precision": precision, "shard": SHARD}
        folder = self._session.vectors.folder(corpus, self._part, digest("promptreps", made))
        numbers = range(-(-len(corpus) // SHARD))
        dense, sparse = ([folder / f"shard-{number:05d}.{end}" for number in numbers] for end in ("npy", "npz"))
        with filling(folder, made, list(zip(dense, sparse, strict=True))) as missing:
            rows = {number: rows_of_shard(number, SHARD, len(corpus)) for number in missing}
            with encoding(sum(map(len, rows.values()))) as shown:
                for number, own in rows.items():
                    vectors, impacts = self._encode(collection, list(corpus.texts(own)), "passage")
                    save_impacts(sparse[number], impacts)
                    write_array(dense[number], vectors.astype(np.float16))
                    shown.advance(len(own))
        return {"dense": dense, "sparse": sparse}


def _bytes(files: Sequence[Path], collection: Collection) -> float:
    return round(sum(path.stat().st_size for path in files) / len(collection.corpus), 1)
