"""What the rankers of one run share while it goes over its collections."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from uar.collections import Corpus

if TYPE_CHECKING:  # all import torch, which a session of BM25 has no use for
    from torch import nn

    from uar.retrievers.vector_index import ExactSearch
    from uar.retrievers.vectors import Vectors


class Session:
    """Search settings, and vectors that stay until their corpus is released or the session ends.

    `open_search`: makes the settings (conf/search) when a ranker first asks for them. `moves`: whether models change their
    device, see `place`. `folder`: the run folder, where a ranker may write what it spent; None where there is none.
    """

    def __init__(self, open_search: "Callable[[], ExactSearch]", moves: bool = True, folder: Path | None = None) -> None:
        self._open_search, self._moves, self.folder = open_search, moves, folder
        self._search: ExactSearch | None = None
        self._vectors: Vectors | None = None
        self._stack = ExitStack()
        self._facts: dict[str, float] = {}
        self._others: dict[str, dict[str, Corpus]] = {}
        self._prepared, self._preparing = 0.0, False

    def __enter__(self) -> "Session":
        self._stack.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def search(self) -> "ExactSearch":
        if self._search is None:
            self._search = self._open_search()
        return self._search

    @property
    def vectors(self) -> "Vectors":
        if self._vectors is None:
            self._vectors = self._stack.enter_context(self.search.vectors())
        return self._vectors

    def at_end(self, close: Callable[[], object]) -> None:
        """Called when the session ends, however it does."""
        self._stack.callback(close)

    def place(self, model: "nn.Module") -> None:
        """On the fastest device while the session lasts; at its end it leaves that to whatever comes next, such as an LLM. One
        in training stays where it is."""
        if self._moves:
            from uar.machine.precision import device

            model.to(device())
            self.at_end(lambda: model.to("cpu"))

    def stands_for(self, other: Corpus, corpus: Corpus) -> None:
        """`other` is searched in place of `corpus`, and released with it."""
        self._others.setdefault(corpus.hash, {})[other.hash] = other

    def release(self, corpus: Corpus) -> None:
        """A corpus is not searched any more: its vectors and indexes go, and those of what stands for it."""
        searched = {corpus.hash: corpus, **self._others.pop(corpus.hash, {})}
        if self._vectors is not None:
            for one in searched.values():
                self._vectors.forget(one)
                self.search.forget(one)

    def note(self, part: str, facts: Mapping[str, float]) -> None:
        """Keep what a ranker called `part` says of its last search, such as `bytes_per_passage` or `recall@100`."""
        self._facts.update({f"{part} {name}".strip(): value for name, value in facts.items()})

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """The block makes or opens what answers any question of a corpus, such as vectors or an index. Its time is not that of
        answering."""
        if self._preparing:
            yield
            return
        start, self._preparing = time.perf_counter(), True
        try:
            yield
        finally:
            self._prepared += time.perf_counter() - start
            self._preparing = False

    def take_prepared(self) -> float:
        """Seconds of preparing since they were last taken."""
        taken, self._prepared = self._prepared, 0.0
        return taken

    def take_facts(self) -> dict[str, float]:
        """What was noted since it was last taken."""
        taken, self._facts = self._facts, {}
        return taken
