"""What chains concluded: judgements by question as columns in memory-mapped Arrow files."""

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uar.annotation.judgement import Judgement
from uar.pools.stored_pools import PoolTable
from uar.storage.files import whole_file

NUMBERS = {  # of a passage, beside its row
    "label": pa.int8(),
    "grade": pa.int32(),
    "score": pa.float64(),
    "rank": pa.int32(),
    "uncertainty": pa.float64(),
}
SCHEMA = pa.schema(
    [("query_id", pa.string()), ("pool", pa.uint64()), ("judged", pa.bool_()), ("row", pa.list_(pa.int32()))]
    + [(name, pa.list_(kind)) for name, kind in NUMBERS.items()]
    + [("logprobs", pa.list_(pa.list_(pa.float64()))), ("votes", pa.list_(pa.list_(pa.int8())))]
)
BLOCK, DECODED = 16_384, 256  # questions that are written, and read, at once
SEEN = b"seen"  # metadata: what the store held when it was last looked through for what is missing

Row = dict[str, Any]  # of one question, by SCHEMA


def row_of(query_id: str, pool: int, judgements: Sequence[Judgement] | None, rows: Mapping[str, int]) -> Row:
    """`pool`: its hash; `judgements`: None where the chain ended with nothing; `rows`: of the corpus, by passage id."""
    judged = judgements or ()
    return {
        "query_id": query_id,
        "pool": pool,
        "judged": judgements is not None,
        "row": [rows[j.doc_id] for j in judged],
        **{name: [getattr(j, name) for j in judged] for name in NUMBERS},
        "logprobs": [list(j.logprobs) for j in judged],
        "votes": [list(j.votes) for j in judged],
    }


def batches_of(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    """Rows in blocks."""
    rows = iter(rows)
    while block := list(islice(rows, BLOCK)):
        yield pa.RecordBatch.from_pylist(block, schema=SCHEMA)


def judged_batch(
    query_ids: Sequence[str], pools: np.ndarray, ends: np.ndarray, columns: Mapping[str, pa.Array]
) -> pa.RecordBatch:
    """Questions with judgements. pools: (queries,) hashes; ends: (queries + 1,) places in `columns`, which are `row` and some
    of `NUMBERS`."""
    offsets, pairs = pa.array(ends, pa.int32()), int(ends[-1])
    nothing = pa.ListArray.from_arrays(np.zeros(pairs + 1, np.int32), pa.nulls(0, pa.float64()))
    values = [columns.get(name, pa.nulls(pairs, kind)) for name, kind in (("row", pa.int32()), *NUMBERS.items())]
    lists = [pa.ListArray.from_arrays(offsets, own) for own in (*values, nothing, nothing.cast(pa.list_(pa.int8())))]
    return pa.record_batch([pa.array(query_ids), pa.array(pools), pa.repeat(True, len(query_ids)), *lists], schema=SCHEMA)


class Conclusions:
    """The file `path`, and beside it parts of a block of questions each, which a run that is reading replies writes as it
    goes on, and which are joined with the file at its end. Rows are read when they are asked for; of several of a question
    the last one counts. Whoever writes is alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = ""
        self._batches: list[pa.RecordBatch] = []
        for file in [path, *self._parts()]:
            table = _mapped(file)
            self._batches += table.to_batches()
            if file == path:
                self.seen = (table.schema.metadata or {}).get(SEEN, b"").decode()
        self._starts = np.cumsum([0, *map(len, self._batches)])
        self._pools, self._judged = (self._column(name) for name in ("pool", "judged"))
        ids = (query_id for batch in self._batches for query_id in batch["query_id"].to_pylist())
        self._at = {query_id: at for at, query_id in enumerate(ids)}
        self._decoded: tuple[int, int, list[Row]] = (-1, -1, [])

    def __len__(self) -> int:
        return len(self._at)

    def held(self, pools: PoolTable) -> np.ndarray:
        """(pools,) whether each was concluded."""
        places = self._places(pools)
        kept = np.append(self._pools, np.uint64(0))[places]
        return (places >= 0) & (kept == pools.hashes)

    def judged(self, query_ids: Iterable[str]) -> np.ndarray:
        """(questions,) whether the chain of each gave judgements."""
        return np.append(self._judged, False)[self._places(query_ids)]

    def row(self, query_id: str) -> Row:
        """Of a question that is concluded. Neighbours are decoded with it, since questions are mostly read in order."""
        at = self._at[query_id]
        batch = int(np.searchsorted(self._starts, at, side="right")) - 1
        block, place = divmod(at - int(self._starts[batch]), DECODED)
        if (batch, block) != self._decoded[:2]:
            self._decoded = batch, block, self._batches[batch].slice(block * DECODED, DECODED).to_pylist()
        return self._decoded[2][place]

    def taken(self, query_ids: Sequence[str], names: Sequence[str]) -> Iterator[tuple[Sequence[str], pa.RecordBatch]]:
        """Some columns of questions that are concluded, a block at a time: the ids of the block, and rows in their order."""
        for start in range(0, len(query_ids), BLOCK):
            block = query_ids[start : start + BLOCK]
            places = self._places(block)
            order = np.argsort(places, kind="stable")
            cuts = np.searchsorted(places[order], self._starts)
            parts = [
                batch.select(list(names)).take(pa.array(places[order[a:b]] - first))
                for batch, a, b, first in zip(self._batches, cuts[:-1], cuts[1:], self._starts[:-1], strict=True)
                if a < b
            ]
            (joined,) = pa.Table.from_batches(parts).combine_chunks().to_batches()
            yield block, joined.take(pa.array(np.argsort(order)))

    def add(self, batches: Iterable[pa.RecordBatch]) -> "Conclusions":
        """Keep each batch as a part as soon as it is there, so that a kill loses one of them."""
        for number, batch in enumerate(batches, len(self._parts())):
            with whole_file(self._part(number)) as beside:
                _write(beside, [batch])
        return Conclusions(self.path)

    def joined(self, seen: str) -> "Conclusions":
        """One file of all that counts. `seen`: the state of the store that was looked through."""
        parts = self._parts()
        if parts or seen != self.seen or not self.path.is_file():
            last = np.zeros(self._starts[-1], bool)
            last[list(self._at.values())] = True
            kept = (batch.filter(pa.array(last[a:b])) for a, b, batch in
                    zip(self._starts[:-1], self._starts[1:], self._batches, strict=True))  # fmt: skip
            with whole_file(self.path) as beside:
                _write(beside, kept, {SEEN: seen.encode()})
            for part in parts:
                os.unlink(part)
        return Conclusions(self.path)

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}-{number:06}.part")

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}-*.part"))

    def _column(self, name: str) -> np.ndarray:
        columns = [batch[name].to_numpy(zero_copy_only=False) for batch in self._batches]
        return np.concatenate([SCHEMA.empty_table()[name].to_numpy(), *columns])

    def _places(self, query_ids: Iterable[str]) -> np.ndarray:
        return np.fromiter((self._at.get(q, -1) for q in query_ids), np.int64)


def _mapped(path: Path) -> pa.Table:
    """The rows of a file; none where it is not there."""
    if not path.is_file():
        return SCHEMA.empty_table()
    with path.open("rb") as file:  # a mapping outlives the file's name, which a later version takes over
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


def _write(path: Path, batches: Iterable[pa.RecordBatch], metadata: Mapping[bytes, bytes] | None = None) -> None:
    schema = SCHEMA.with_metadata(dict(metadata or {}))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            if len(batch):
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
