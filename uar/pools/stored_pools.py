"""Pools as they are shown, kept in a folder before anything is asked of them: by question, rows of the corpus in order."""

import hashlib
import json
import secrets
import time
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uar.collections import Collection
from uar.errors import DataError
from uar.machine.heap import release_heap
from uar.storage.files import write_table
from uar.storage.segments import ends_of, places_of

SCHEMA = pa.schema([("query_id", pa.string()), ("question", pa.uint64()), ("rows", pa.list_(pa.int32()))])
COMMAND = b"command"  # in a part's metadata
BLOCK = 16_384  # questions whose passages are looked up at once
NOTHING = np.zeros(0, np.int32)


class Pool(NamedTuple):
    """`question`: a hash of the question's text, answers and image; `rows`: of the corpus, in the order shown."""

    question: int
    rows: np.ndarray

    def hash(self) -> int:
        """Of all that is shown, in 64 bits."""
        return _short(self.question.to_bytes(8, "little") + self.rows.astype("<i4").tobytes())


class PoolTable(Mapping[str, Pool]):
    """Pools by query id, as columns. questions: (queries,) hashes; ends: (queries + 1,) places in `rows`, which holds those of
    all pools one after another."""

    def __init__(self, query_ids: Sequence[str], questions: np.ndarray, ends: np.ndarray, rows: np.ndarray) -> None:
        self.questions, self.ends, self.rows = questions, ends, rows
        self._at = {query_id: at for at, query_id in enumerate(query_ids)}

    @staticmethod
    def of(pools: Mapping[str, Pool]) -> "PoolTable":
        """The pools of any mapping."""
        if isinstance(pools, PoolTable):
            return pools
        questions = np.fromiter((pool.question for pool in pools.values()), np.uint64, len(pools))
        rows = [pool.rows for pool in pools.values()]
        return PoolTable(list(pools), questions, ends_of([len(own) for own in rows]), _joined(rows))

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._at

    def __getitem__(self, query_id: str) -> Pool:
        return self._pool(self._at[query_id])

    @cached_property
    def hashes(self) -> np.ndarray:
        """(queries,) those of `Pool.hash`."""
        return np.fromiter((self._pool(at).hash() for at in range(len(self))), np.uint64, len(self))

    def sizes(self) -> list[int]:
        """Passages of each pool."""
        return np.diff(self.ends).tolist()

    def places(self, query_ids: Sequence[str]) -> np.ndarray:
        """(queries,) where the questions stand."""
        return np.fromiter((self._at[q] for q in query_ids), np.int64, len(query_ids))

    def chosen(self, query_ids: Sequence[str]) -> "PoolTable":
        """The pools of some of the questions, in that order."""
        places = self.places(query_ids)
        if np.array_equal(places, np.arange(len(self))):
            return self
        ends, values = places_of(self.ends, places)
        return PoolTable(query_ids, self.questions[places], ends, self.rows[values])

    def joined(self, other: "PoolTable") -> "PoolTable":
        """The pools of both, which are of different questions."""
        ends = np.concatenate([self.ends, self.ends[-1] + other.ends[1:]])
        questions, rows = np.concatenate([self.questions, other.questions]), np.concatenate([self.rows, other.rows])
        return PoolTable([*self, *other], questions, ends, rows)

    def _pool(self, at: int) -> Pool:
        return Pool(int(self.questions[at]), self.rows[self.ends[at] : self.ends[at + 1]])


def pools_of(collection: Collection, pools: Mapping[str, Sequence[str]]) -> PoolTable:
    """Passage ids by query id as pools; UserError where the corpus lacks one."""
    if isinstance(pools, ShownIds):
        return pools.table
    query_ids = list(pools)
    blocks = [query_ids[start : start + BLOCK] for start in range(0, len(query_ids), BLOCK)]
    rows = [np.array(collection.corpus.rows([d for q in block for d in pools[q]]), np.int32) for block in blocks]
    return pool_table(collection, query_ids, ends_of([len(pools[q]) for q in query_ids]), _joined(rows))


def pool_table(collection: Collection, query_ids: Sequence[str], ends: np.ndarray, rows: np.ndarray) -> PoolTable:
    """Pools of questions as they are worded and answered today."""
    questions = np.fromiter((question_hash(collection, q) for q in query_ids), np.uint64, len(query_ids))
    return PoolTable(query_ids, questions, ends, rows)


def question_hash(collection: Collection, query_id: str) -> int:
    """Of a question's text, answers and image, in 64 bits."""
    query = collection.queries[query_id]
    asked = [query.text, query.answers, *([query.image.key] if query.image else [])]
    return _short(json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def ids_of(collection: Collection, pool: Pool) -> list[str]:
    """The passage ids of a pool, in the order shown."""
    return collection.corpus.ids_at(pool.rows)


class ShownIds(Mapping[str, list[str]]):
    """The passage ids of pools, in the order shown, read when a question is asked for."""

    def __init__(self, collection: Collection, pools: PoolTable) -> None:
        self._collection, self.table = collection, pools

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __getitem__(self, query_id: str) -> list[str]:
        return ids_of(self._collection, self.table[query_id])

    def items(self) -> ItemsView[str, list[str]]:
        return _Items(self)

    def blocks(self) -> Iterator[tuple[str, list[str]]]:
        """All of them, those of many questions read at once."""
        query_ids, ends = list(self.table), self.table.ends.tolist()
        for start in range(0, len(query_ids), BLOCK):
            block = query_ids[start : start + BLOCK]
            first, last = ends[start], ends[start + len(block)]
            ids = self._collection.corpus.ids_at(self.table.rows[first:last])
            for at, query_id in enumerate(block, start):
                yield query_id, ids[ends[at] - first : ends[at + 1] - first]


class _Items(ItemsView[str, list[str]]):
    def __init__(self, shown: ShownIds) -> None:
        super().__init__(shown)
        self._shown = shown

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return self._shown.blocks()


class StoredPools:
    """Append-only parts in `folder`, each written beside and renamed, so that many processes may write. Of several pools of a
    question the last written counts, of several questions of one id that which is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pools: Mapping[str, Pool], command: str | None = None) -> int:
        """Keep the pools that differ from what is kept, and return their number. `command`: that asks about them."""
        given = PoolTable.of(pools)
        kept = self.read(dict(zip(given, given.questions.tolist(), strict=True)))
        known = dict(zip(kept, kept.hashes.tolist(), strict=True))
        fresh = given.chosen([q for q, own in zip(given, given.hashes.tolist(), strict=True) if known.get(q) != own])
        if fresh:
            lists = pa.ListArray.from_arrays(pa.array(fresh.ends, pa.int32()), pa.array(fresh.rows, pa.int32()))
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
            table = pa.table([list(fresh), fresh.questions, lists], schema=SCHEMA.with_metadata({COMMAND: command or ""}))
            write_table(self.folder / name, table, compression="zstd")
        return len(fresh)

    def read(self, worded: Mapping[str, int] | None = None) -> PoolTable:
        """By query id. `worded`: `Pool.question` by query id; pools of other questions, or of questions that were worded
        otherwise, are left out. DataError where a file is no part."""
        ids: list[str] = []
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # questions, sizes, rows
        for path in self._parts():
            try:
                table = pq.read_table(path, schema=SCHEMA)
            except (OSError, pa.ArrowException) as error:
                raise DataError(path, f"not a part of stored pools ({str(error).splitlines()[0]}); move it away") from error
            ids += table["query_id"].to_pylist()
            for lists in table["rows"].chunks:
                parts.append((np.zeros(0, np.uint64), np.diff(lists.offsets.to_numpy()), lists.flatten().to_numpy()))
            parts.append((table["question"].to_numpy(), np.zeros(0, np.int32), np.zeros(0, np.int32)))
        questions, sizes, rows = (_joined(column) for column in zip(*parts, strict=True)) if parts else (NOTHING,) * 3
        wanted: Iterable[tuple[int, str]] = enumerate(ids)
        if worded is not None:
            wanted = [(at, q) for (at, q), own in zip(wanted, questions.tolist(), strict=True) if worded.get(q) == own]
        last = {query_id: at for at, query_id in wanted}  # its first place in the order, its last pool
        ends, places = ends_of(sizes), np.fromiter(last.values(), np.int64, len(last))
        if len(last) < len(ids):
            questions = questions[places]
            ends, values = places_of(ends, places)
            rows = rows[values]
        release_heap()
        return PoolTable(list(last), questions.astype(np.uint64, copy=False), ends, rows)

    def commands(self, worded: Mapping[str, int]) -> list[str]:
        """Those that ask about the pools of these questions, see `read`, the latest first; none where pools do not say it."""
        left, found = dict(worded), dict[str, None]()
        for path in reversed(self._parts()):
            table = pq.read_table(path, columns=["query_id", "question"])
            kept = zip(table["query_id"].to_pylist(), table["question"].to_pylist(), strict=True)
            own = {query_id for query_id, question in kept if left.get(query_id) == question}
            command = (table.schema.metadata or {}).get(COMMAND, b"").decode()
            found |= {command: None} if own and command else {}
            left = {query_id: question for query_id, question in left.items() if query_id not in own}
        return list(found)

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.parquet") if not path.name.startswith("."))


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else NOTHING


def _short(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
