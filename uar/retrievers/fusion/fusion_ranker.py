"""A ranker that makes one ranking of several: of run files, and of other retrievers."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy

from uar.collections import Collection
from uar.errors import UserError
from uar.retrievers.fusion.methods import Values, fuse, of_each
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.run_file import RunFile
from uar.retrievers.session import Session
from uar.storage.files import digest
from uar.storage.runs import Run, run_files


class Fusion(Ranker):
    """What `retriever=fusion` instantiates; see `fuse` for the methods.

    `runs`: files by name, or a list of files. `retrievers`: rankers by name. `weights`: by name, or a list in the order of
    runs and then retrievers; 1 where none is given.
    """

    def __init__(
        self,
        runs: Mapping[str, str] | Sequence[str] | None = None,
        retrievers: Mapping[str, Ranker] | None = None,
        method: str = "rrf",
        weights: Values = None,
        k: int = 60,
    ) -> None:
        files = run_files(runs, "retriever.runs") if runs else {}
        names = [*files, *(retrievers or {})]
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(
                f"fusion of {', '.join(names) or 'nothing'}: at least two names that differ are needed; give "
                "'retriever.runs=[A.trec,B.trec]' or add +retriever@retriever.retrievers.NAME=CHOICE"
            )
        self._rankers: dict[str, Ranker] = {name: RunFile(path) for name, path in files.items()} | dict(retrievers or {})
        self._weights = of_each(weights, names, "retriever.weights", 1.0)
        self._method, self._k = method, k
        fuse([], method, None, k)  # refuses options before anything is retrieved
        self.name = f"{method}({', '.join(names)})"

    @property
    def searches(self) -> bool:
        return all(ranker.searches for ranker in self._rankers.values())

    @property
    def lengths(self) -> dict[str, int]:
        return {f"{of}.{name}": n for of, ranker in self._rankers.items() for name, n in ranker.lengths.items()}

    def key(self, collection: Collection) -> str | None:
        keys = {name: ranker.key(collection) for name, ranker in self._rankers.items()}
        return None if None in keys.values() else digest(self._method, self._k, self._weights, keys)

    def reach(self, collection: Collection, depth: int) -> int:
        return min(depth, sum(ranker.reach(collection, depth) for ranker in self._rankers.values()))

    def opened(self, session: Session, part: str = "") -> "Fusion":
        """With each of its rankers opened under a name of its own, so that each has its own vectors."""
        fusion = copy(self)
        fusion._rankers = {
            name: ranker.opened(session, f"{part}/{name}" if part else name) for name, ranker in self._rankers.items()
        }
        return fusion

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        """The `depth` best of what each ranker has among its own `depth` best; run files are read whole."""
        return self._fused((ranker.rank(collection, query_ids, depth) for ranker in self._rankers.values()), depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        """Fused from the rankings of each pool. What no ranker has a score for is left out."""
        return self._fused((ranker.score(collection, pools) for ranker in self._rankers.values()), None)

    def _fused(self, runs: Iterable[Run], depth: int | None) -> Run:
        return fuse(list(runs), self._method, self._weights, self._k, depth)
