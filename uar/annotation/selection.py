"""Which annotation labels are taken from: that of the latest run, of a run folder, or of all runs together."""

import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uar.annotation.annotation import Annotation, Asked, unchanged
from uar.annotation.asked_besides import FILE as BESIDES
from uar.annotation.asked_besides import add_besides, besides_of
from uar.collections import Collection
from uar.collections.checked_files import candidates_of
from uar.errors import UserError
from uar.pools.stored_pools import Pool, PoolTable, StoredPools, pools_of
from uar.storage.files import digest, read_json, write_json
from uar.storage.locks import alone

ABOUT, LAST_RUN = "about.json", "last_run.json"


@dataclass(frozen=True)
class Annotations:
    """The annotations of a store. `also`: folders that are read besides (shipped annotations)."""

    store: Path
    also: tuple[Path, ...] = ()

    def begin(
        self,
        asked: Asked,
        candidates: Mapping[str, Any],
        pools: Mapping[str, Sequence[str]],
        run: Mapping[str, Any],
        besides: Set[str] = frozenset(),
        command: str | None = None,
    ) -> Annotation:
        """Write the pools of a run before it asks. `candidates`: plain options of what made the pools, the seed among them;
        `run`: what is said of the run itself: its folder, and the `seed` that drew the questions to calibrate on; `besides`:
        the questions that nobody learns from; `command`: that of the run, which completes the questions that it brings."""
        shown = pools_of(asked.collection, pools)
        name = digest(candidates)[:16]
        folder = self.store / "pools" / asked.key / name
        about = {
            "annotator": asked.annotator.asks(),
            "models": list(asked.models),
            "corpus": asked.collection.corpus.hash,
            "collection": asked.collection.slug,
            "candidates": candidates,
        }
        write_json(folder / ABOUT, about)
        with alone(folder / f"{BESIDES}.lock"):
            stored = StoredPools(folder)
            add_besides(folder, shown, besides, lambda some: stored.read({q: pool.question for q, pool in some.items()}))
            stored.add(shown, command)
        last = {"time": time.time(), **run}
        write_json(folder / LAST_RUN, last)
        return Annotation(asked, name, shown, {**about, "run": last}, self.store, self.also, besides_of(folder, shown))

    def choose(self, asked: Asked, which: str) -> Annotation | None:
        """`which`: `latest`, `union`, or an annotate run folder; None where the store has none of the collection's questions.
        A passage-wise annotator's pools add up in a union; of others a question's latest pool counts."""
        if asked.own:
            return self.own(asked, asked.own.pools)
        if which not in ("latest", "union"):
            return self.of_run(asked, Path(which))
        if which == "latest":
            return next(self._latest_first(asked), None)
        every = list(self._latest_first(asked))[::-1]
        if not every:
            return None
        pools: dict[str, Pool] = {}
        besides = {q for one in every for q in one.besides} - {q for one in every for q in one.wanted}
        for annotation in every:
            for query_id, pool in annotation.pools.items():
                adds = asked.annotator.passage_wise and query_id in pools
                pools[query_id] = _joined(pools[query_id], pool) if adds else pool
        about = {"union": [annotation.name for annotation in every], "run": every[-1].about["run"]}
        return Annotation(asked, "union", PoolTable.of(pools), about, self.store, self.also, frozenset(besides))

    def own(self, asked: Asked, pools: PoolTable) -> Annotation:
        """Of an annotator that needs not be asked, and of some of its pools."""
        return Annotation(asked, "own", pools, {}, self.store, self.also)

    def of_run(self, asked: Asked, folder: Path) -> Annotation:
        """The pools that an annotate run has shown, as its folder says."""
        files = sorted((folder / "candidates").glob("*.jsonl"))
        if len(files) != 1:
            raise UserError(f"annotation={folder}: no annotate run folder with its candidates; allowed: latest, union, or one")
        pools, _ = candidates_of(files[0], asked.collection)
        if not pools:
            raise UserError(f"annotation={folder}: none of its questions is in {asked.collection.reference}; give another run")
        about = {"run": {"time": files[0].stat().st_mtime, "folder": str(folder)}}
        name, shown = f"run-{digest(pools)[:16]}", pools_of(asked.collection, pools)
        return Annotation(asked, name, shown, about, self.store, self.also, besides_of(folder, shown))

    def forget(self) -> None:
        """Leave nothing of what was concluded: it is concluded anew of the replies that the store has."""
        for place in self.store.glob("pools/*/*/judgements"):
            for file in (*place.glob("*.arrow"), *place.glob("*.part")):
                file.unlink(missing_ok=True)

    def listed(self, corpus: str | None = None) -> list[dict[str, Any]]:
        """What is known of every annotation, by any annotator, of a corpus, or of all of them: `annotator`, `models`,
        `collection`, `candidates`, `questions` (their number), `run` (the last one), oldest run first."""
        return [{**about, "questions": len(StoredPools(folder).read())} for folder, about in self.placed(corpus)]

    def placed(self, corpus: str | None = None) -> list[tuple[Path, dict[str, Any]]]:
        """The folders of annotations with what `listed` says of each, but for the number of questions."""
        folders = [path.parent for place in self._places() for path in sorted(place.glob(f"*/*/{ABOUT}"))]
        every = [(folder, _about(folder)) for folder in folders]
        chosen = [(folder, about) for folder, about in every if corpus in (None, about["corpus"])]
        return sorted(chosen, key=lambda found: found[1]["run"]["time"])

    def held(self, collection: Collection) -> str:
        """What there is of a collection's corpus, in words, and how it is taken."""
        every = self.listed()
        own = [about for about in every if about["corpus"] == collection.corpus.hash]
        if not own and not self.store.is_dir():
            return f"there is no folder {self.store}; name that of the annotate run with store=DIR"
        if not own:
            others = ", ".join(dict.fromkeys(about["collection"] for about in every))
            return f"it holds nothing of this corpus, but of {others}" if others else "it holds no annotation at all"
        own.sort(key=lambda about: about["collection"] != collection.slug)  # those of its own split before others
        folder = next((run for about in own if (run := about["run"].get("folder"))), None)
        hint = f"; annotation=FOLDER takes one with its annotator and llm, such as annotation={folder}" if folder else ""
        return f"of this corpus it holds: {'; '.join(map(described, own))}{hint}"

    def _latest_first(self, asked: Asked) -> Iterator[Annotation]:
        paths = [path for place in self._places() for path in sorted((place / asked.key).glob(f"*/{ABOUT}"))]
        known = sorted(((_about(path.parent), path.parent) for path in paths), key=lambda one: one[0]["run"]["time"])
        for about, folder in reversed(known):
            pools = unchanged(asked.collection, StoredPools(folder))
            if pools:
                besides = besides_of(folder, pools)
                yield Annotation(asked, folder.name, pools, about, self.store, self.also, besides)

    def _places(self) -> list[Path]:
        return [folder / "pools" for folder in (*self.also, self.store)]


def _about(folder: Path) -> dict[str, Any]:
    run = folder / LAST_RUN
    return {**read_json(folder / ABOUT), "run": read_json(run) if run.is_file() else {"time": 0.0}}


def _joined(first: Pool, second: Pool) -> Pool:
    """The passages of the first, then those that the second has besides."""
    return Pool(first.question, np.concatenate([first.rows, second.rows[~np.isin(second.rows, first.rows)]]))


def described(about: Mapping[str, Any]) -> str:
    """One line on an annotation: annotator, models, depth of its pools, their number, the last run."""
    depth, folder = about["candidates"].get("depth"), about["run"].get("folder")
    asked = f"{about['annotator']['annotator']} with {', '.join(about['models'])}, depth {depth}"
    number = f", {about['questions']} questions" if "questions" in about else ""
    return f"{asked}, of {about['collection']}{number}{f', run {folder}' if folder else ''}"
