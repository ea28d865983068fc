"""A retriever that makes one ranking of several: of run files, and of other retrievers."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Union

from uar.collections import Collection
from uar.collections.collection_runs import read_known, without_own
from uar.errors import UserError
from uar.retrievers.fusion.methods import Values, fuse, of_each
from uar.retrievers.kind import is_bi_encoder
from uar.storage.runs import Run, run_files

if TYPE_CHECKING:
    from uar.retrievers.bi_encoder.encoder import BiEncoder

Retriever = Union["BiEncoder", Callable[[Collection, list[str]], Run]]
Dense = Callable[[str, "BiEncoder", Collection, list[str], int], Run]


def encode_and_rank(name: str, retriever: "BiEncoder", collection: Collection, query_ids: list[str], depth: int) -> Run:
    """The `depth` best passages a query by the bi-encoder called `name`, whose vectors are made for this call alone."""
    from uar.retrievers.bi_encoder.dense import retrieve

    return retrieve(retriever, collection, query_ids, depth)


class Fusion:
    """What `retriever=fusion` instantiates; see `fuse` for the methods.

    `runs`: files by name, or a list of files. `retrievers`: bi-encoders or rankers by name. `weights`: by name, or a list in
    the order of runs and then retrievers; 1 where none is given. `depth`: passages a query of the result.
    """

    def __init__(
        self,
        runs: Mapping[str, str] | Sequence[str] | None = None,
        retrievers: Mapping[str, Retriever] | None = None,
        method: str = "rrf",
        weights: Values = None,
        k: int = 60,
        depth: int = 1000,
    ) -> None:
        self._files = run_files(runs, "retriever.runs") if runs else {}
        self._retrievers = dict(retrievers or {})
        names = [*self._files, *self._retrievers]
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(
                f"fusion of {', '.join(names) or 'nothing'}: at least two names that differ are needed; give "
                "'retriever.runs=[A.trec,B.trec]' or add +retriever@retriever.retrievers.NAME=CHOICE"
            )
        self._weights = of_each(weights, names, "retriever.weights", 1.0)
        self._method, self._k, self._depth = method, k, depth
        fuse([], method, None, k, depth)  # refuses options before anything is retrieved
        self.name = f"{method}({', '.join(names)})"

    def __call__(self, collection: Collection, query_ids: list[str], dense: Dense = encode_and_rank) -> Run:
        """`dense`: how a bi-encoder, given with its name, ranks so many passages a query; by default it encodes the corpus
        each time. UserError where a run file has none of the queries."""
        runs: list[Run] = [read_known(path, collection, query_ids) for path in self._files.values()]
        for name, retriever in self._retrievers.items():
            if is_bi_encoder(retriever):
                from uar.machine.precision import device

                deep = self._depth + collection.drop_own
                found = dense(name, retriever.to(device()), collection, query_ids, deep)
                runs.append(without_own(collection, found, self._depth))
            else:
                runs.append(retriever(collection, query_ids))
        runs = [without_own(collection, run) for run in runs]
        return fuse(runs, self._method, self._weights, self._k, self._depth)
