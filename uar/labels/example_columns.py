"""Examples of any number of queries as columns, of which one is made when it is asked for."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Protocol, overload

import numpy as np
import pyarrow as pa

from uar.labels.examples import Example
from uar.storage.files import digest
from uar.storage.segments import ends_of

BLOCK = 4_096  # queries that are read or packed at once


class Passages(Protocol):
    """Where passages stand, such as a corpus."""

    hash: str

    def rows(self, doc_ids: Sequence[str]) -> list[int]: ...

    def ids_at(self, rows: np.ndarray) -> list[str]: ...

    def id_column(self, rows: np.ndarray) -> pa.Array | pa.ChunkedArray: ...


@dataclass(frozen=True)
class Columns:
    """Of the examples of some queries, one query after another.

    sizes, positives, ignored_sizes: (queries,) pairs, those of them that are positives, which stand first, and ignored
    passages; own: (queries,) source of the example, a place in a list of names; weight: (queries,). rows, source, utility:
    (pairs,) row of the passage, source of the label, nan where there is no utility; whole: (pairs,) whether the utility is a
    whole number, such as a grade. ignored: (ignored,) rows.
    """

    sizes: np.ndarray
    positives: np.ndarray
    ignored_sizes: np.ndarray
    own: np.ndarray
    weight: np.ndarray
    rows: np.ndarray
    source: np.ndarray
    utility: np.ndarray
    whole: np.ndarray
    ignored: np.ndarray

    def __post_init__(self) -> None:
        for column, kind in zip(fields(self), KINDS, strict=True):
            object.__setattr__(self, column.name, getattr(self, column.name).astype(kind, copy=False))


KINDS = (np.int32, np.int32, np.int32, np.uint16, np.float64, np.int32, np.uint16, np.float64, np.bool_, np.int32)


class Examples(Sequence[Example]):
    """`parts`: of the queries in their order, and emptied; `names`: of the sources."""

    def __init__(self, query_ids: list[str], parts: list[Columns], names: Sequence[str], passages: Passages) -> None:
        self.query_ids, self.names, self.passages = query_ids, list(names), passages
        self.columns = _joined(parts)
        self.ends, self.ignored_ends = ends_of(self.columns.sizes), ends_of(self.columns.ignored_sizes)

    @staticmethod
    def of(examples: Iterable[Example], passages: Passages) -> "Examples":
        """Any examples as columns; UserError where a passage is not there."""
        if isinstance(examples, Examples):
            return examples
        iterator, names, query_ids = iter(examples), dict[str, int](), list[str]()
        parts = []
        while block := list(islice(iterator, BLOCK)):
            query_ids += [example.query_id for example in block]
            parts.append(_packed(block, passages, names))
        return Examples(query_ids, parts, list(names), passages)

    def __len__(self) -> int:
        return len(self.query_ids)

    @overload
    def __getitem__(self, at: int) -> Example: ...

    @overload
    def __getitem__(self, at: slice) -> list[Example]: ...

    def __getitem__(self, at: int | slice) -> Example | list[Example]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        return next(self._block(place, place + 1))

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), BLOCK):
            yield from self._block(start, min(len(self), start + BLOCK))

    def labels(self) -> np.ndarray:
        """(pairs,) whether each is positive."""
        counts = np.stack([self.columns.positives, self.columns.sizes - self.columns.positives], axis=1)
        return np.repeat(np.tile([True, False], len(self)), counts.ravel())

    def rows_of(self, at: int) -> dict[str, int]:
        """Where the passages of a query stand, ignored ones too, by their ids."""
        own = self.columns.rows[self.ends[at] : self.ends[at + 1]]
        ignored = self.columns.ignored[self.ignored_ends[at] : self.ignored_ends[at + 1]]
        rows = np.concatenate([own, ignored])
        return dict(zip(self.passages.ids_at(rows), rows.tolist(), strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """Of all that the examples say: much quicker than going through them, and told by their places."""
        whole = hashlib.blake2b(digest_size=16)
        whole.update(digest(self.passages.hash, self.names, self.query_ids).encode())
        for column in fields(Columns):
            whole.update(getattr(self.columns, column.name))
        return whole.hexdigest()

    def _block(self, start: int, end: int) -> Iterator[Example]:
        of, first, first_ignored = self.columns, int(self.ends[start]), int(self.ignored_ends[start])
        pairs, others = slice(first, int(self.ends[end])), slice(first_ignored, int(self.ignored_ends[end]))
        ids, ignored = self.passages.ids_at(of.rows[pairs]), self.passages.ids_at(of.ignored[others])
        sources = [self.names[at] for at in of.source[pairs].tolist()]
        utilities = _utilities(of.utility[pairs], of.whole[pairs])
        for at in range(start, end):
            a, b = int(self.ends[at]) - first, int(self.ends[at + 1]) - first
            middle, source = a + int(of.positives[at]), self.names[int(of.own[at])]
            c, d = int(self.ignored_ends[at]) - first_ignored, int(self.ignored_ends[at + 1]) - first_ignored
            who, useful = tuple(sources[a:b]), tuple(utilities[a:b])
            yield Example(
                self.query_ids[at],
                tuple(ids[a:middle]),
                tuple(ids[middle:b]),
                source,
                who if any(name != source for name in who) else (),
                useful if any(value is not None for value in useful) else (),
                tuple(ignored[c:d]),
                float(of.weight[at]),
            )


def _joined(parts: list[Columns]) -> Columns:
    """One column after another, and `parts` is emptied, so that little of it stands there twice."""
    lists = [[getattr(part, column.name) for part in parts] for column in fields(Columns)]
    parts.clear()
    joined = []
    for kind in KINDS:
        own = lists.pop(0)
        joined.append(np.concatenate([np.zeros(0, kind), *own]))
        own.clear()
    return Columns(*joined)


def _utilities(values: np.ndarray, whole: np.ndarray) -> list[float | None]:
    missing = np.isnan(values)
    if missing.all():
        return [None] * len(values)
    found: list[float | None] = values.tolist()
    for at in np.flatnonzero(whole).tolist():
        found[at] = int(values[at])
    for at in np.flatnonzero(missing).tolist():
        found[at] = None
    return found


def _packed(block: Sequence[Example], passages: Passages, names: dict[str, int]) -> Columns:
    """`names` grows by the sources that it lacks."""
    pairs = [pair for example in block for pair in example.pairs()]
    ignored = [d for example in block for d in example.ignored]
    rows = passages.rows([*(pair.doc_id for pair in pairs), *ignored])
    return Columns(
        sizes=_sizes([e.positives + e.negatives for e in block]),
        positives=_sizes([e.positives for e in block]),
        ignored_sizes=_sizes([e.ignored for e in block]),
        own=np.array([names.setdefault(e.source, len(names)) for e in block]),
        weight=np.array([e.weight for e in block], np.float64),
        rows=np.array(rows[: len(pairs)]),
        source=np.array([names.setdefault(pair.source, len(names)) for pair in pairs]),
        utility=np.array([np.nan if pair.utility is None else pair.utility for pair in pairs], np.float64),
        whole=np.array([isinstance(pair.utility, int) for pair in pairs], np.bool_),
        ignored=np.array(rows[len(pairs) :]),
    )


def weights_of(examples: Sequence[Example]) -> np.ndarray:
    """(queries,)."""
    return examples.columns.weight if isinstance(examples, Examples) else np.array([e.weight for e in examples], np.float64)


def positives_of(examples: Sequence[Example]) -> np.ndarray:
    """(queries,) how many positives each has."""
    return examples.columns.positives if isinstance(examples, Examples) else _sizes([e.positives for e in examples])


def negatives_of(examples: Sequence[Example]) -> np.ndarray:
    """(queries,) how many negatives each has."""
    if isinstance(examples, Examples):
        return examples.columns.sizes - examples.columns.positives
    return _sizes([e.negatives for e in examples])


def positives_by_source(examples: Sequence[Example]) -> Counter[str]:
    """How many positives each source named."""
    if not isinstance(examples, Examples):
        return Counter(pair.source for example in examples for pair in example.pairs() if pair.label)
    counts = np.bincount(examples.columns.source[examples.labels()], minlength=len(examples.names))
    return Counter({name: n for name, n in zip(examples.names, counts.tolist(), strict=True) if n})


def utilities_of(examples: Sequence[Example]) -> np.ndarray:
    """(queries,) how many passages of each have a utility."""
    if isinstance(examples, Examples):
        return np.diff(ends_of(~np.isnan(examples.columns.utility))[examples.ends])
    return np.array([len(e.utilities()) for e in examples], np.int64)


def share_of_chances(examples: Sequence[Example], below: float) -> float | None:
    """Share of the negatives whose utility is `below` or less; None where there are no utilities, or one is no probability."""
    if isinstance(examples, Examples):
        utility, labels = examples.columns.utility, examples.labels()
    else:
        pairs = [pair for example in examples for pair in example.pairs()]
        utility = np.array([np.nan if pair.utility is None else pair.utility for pair in pairs], np.float64)
        labels = np.array([pair.label for pair in pairs], np.bool_)
    known = utility[~np.isnan(utility)]
    if not len(known) or known.min() < 0 or known.max() > 1:
        return None
    return float((utility <= below)[~labels].mean()) if (~labels).any() else 0.0


def sources_of(examples: Sequence[Example]) -> list[str]:
    """Those of the examples, each once."""
    if isinstance(examples, Examples):
        return [examples.names[at] for at in np.unique(examples.columns.own).tolist()]
    return sorted({e.source for e in examples})


def _sizes(lists: Sequence[Sequence[str]]) -> np.ndarray:
    return np.array([len(own) for own in lists], np.int64)
