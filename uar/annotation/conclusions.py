"""What chains concluded: judgements by question as columns in memory-mapped Arrow files."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uar.annotation.judgement import Judgement
from uar.pools.stored_pools import PoolTable
from uar.storage.files import whole_file
from uar.storage.mapped_file import MappedFile
from uar.storage.segments import ends_of

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
SEEN = b"seen"  # metadata: the pools and what the store held when it was last looked through for what is missing

Row = dict[str, Any]  # of one question, by SCHEMA


class Ended(NamedTuple):
    """A question whose chain ended. `pool`: the hash of its pool; `judgements`: None where the chain ended with nothing;
    `rows`: of the corpus, by passage id."""

    query_id: str
    pool: int
    judgements: Sequence[Judgement] | None
    rows: Mapping[str, int]


def batches_of(questions: Iterable[Ended]) -> Iterator[pa.RecordBatch]:
    """Questions in blocks."""
    questions = iter(questions)
    while first := next(questions, None):
        yield _batch(chain([first], islice(questions, BLOCK - 1)))


def _batch(questions: Iterable[Ended]) -> pa.RecordBatch:
    """What each question has goes into the columns at once, so that its judgements need not be kept."""
    query_ids, pools, good, sizes, rows = list[str](), list[int](), list[bool](), list[int](), list[int]()
    numbers: dict[str, list[Any]] = {name: [] for name in NUMBERS}
    nested: dict[str, list[Any]] = {"logprobs": [], "votes": []}
    read = [(attrgetter(name), values) for name, values in (numbers | nested).items()]
    for query_id, pool, judgements, row_by_id in questions:
        judged = judgements or ()
        query_ids.append(query_id)
        pools.append(pool)
        good.append(judgements is not None)
        sizes.append(len(judged))
        rows += [row_by_id[j.doc_id] for j in judged]
        for value_of, values in read:
            values += map(value_of, judged)
    offsets = pa.array(ends_of(sizes), pa.int32())
    columns = [pa.array(rows, pa.int32()), *(pa.array(numbers[name], kind) for name, kind in NUMBERS.items())]
    columns += [pa.array(values, SCHEMA.field(name).type.value_type) for name, values in nested.items()]
    lists = [pa.ListArray.from_arrays(offsets, own) for own in columns]
    return pa.record_batch([pa.array(query_ids), pa.array(pools, pa.uint64()), pa.array(good), *lists], schema=SCHEMA)


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
        self._files: list[MappedFile] = []
        for file in filter(Path.is_file, [path, *self._parts()]):
            self._files.append(MappedFile(file))
            table = self._files[-1].table()
            self._batches += table.to_batches()
            if file == path:
                self.seen = (table.schema.metadata or {}).get(SEEN, b"").decode()
        self._starts = np.cumsum([0, *map(len, self._batches)])
        self._pools, self._judged = (self._column(name) for name in ("pool", "judged"))
        self._decoded: tuple[int, int, list[Row]] = (-1, -1, [])

    def __len__(self) -> int:
        return int(self._last().sum())

    def of(self, pools: PoolTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Three of (pools,): whether each was concluded, whether its chain gave judgements, and of how many passages."""
        places = self._places(pools)
        held = (places >= 0) & (np.append(self._pools, np.uint64(0))[places] == pools.hashes)
        sizes = np.concatenate(
            [*(pc.list_value_length(batch["row"]).to_numpy() for batch in self._batches), np.zeros(1, np.int32)]
        )
        return held, np.append(self._judged, False)[places], sizes[places]

    def row(self, query_id: str) -> Row:
        """Of a question that is concluded. Neighbours are decoded with it, since questions are mostly read in order."""
        at = self._at[query_id]
        batch = int(np.searchsorted(self._starts, at, side="right")) - 1
        block, place = divmod(at - int(self._starts[batch]), DECODED)
        if (batch, block) != self._decoded[:2]:
            self._decoded = batch, block, self._batches[batch].slice(block * DECODED, DECODED).to_pylist()
        return self._decoded[2][place]

    def taken(self, query_ids: Sequence[str], names: Sequence[str]) -> Iterator[tuple[Sequence[str], pa.RecordBatch]]:
        """Some columns of questions that are concluded, a block at a time: the ids of the block, and rows in their order. What
        was read of the files is left after the last one."""
        every = self._places(query_ids)
        for start in range(0, len(query_ids), BLOCK):
            block, places = query_ids[start : start + BLOCK], every[start : start + BLOCK]
            order = np.argsort(places, kind="stable")
            cuts = np.searchsorted(places[order], self._starts)
            parts = [
                batch.select(list(names)).take(pa.array(places[order[a:b]] - first))
                for batch, a, b, first in zip(self._batches, cuts[:-1], cuts[1:], self._starts[:-1], strict=True)
                if a < b
            ]
            (joined,) = pa.Table.from_batches(parts).combine_chunks().to_batches()
            yield block, joined.take(pa.array(np.argsort(order)))
        for file in self._files:
            file.leave()

    def add(self, batches: Iterable[pa.RecordBatch]) -> "Conclusions":
        """Keep each batch as a part as soon as it is there, so that a kill loses one of them."""
        for number, batch in enumerate(batches, len(self._parts())):
            with whole_file(self._part(number)) as beside:
                _write(beside, [batch])
        return Conclusions(self.path)

    def joined(self, seen: str) -> "Conclusions":
        """One file of all that counts. `seen`: the state of pools and store that was looked through."""
        parts = self._parts()
        if parts or seen != self.seen or not self.path.is_file():
            last = self._last()
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
        """(questions,) where each was concluded last, -1 where it was not. The ids of the file stay there: many are looked for
        at once, without a Python string of each."""
        return self._found(pa.array(list(query_ids), pa.string()))

    def _last(self) -> np.ndarray:
        """(rows,) whether no later row is of the same question."""
        last = np.zeros(self._starts[-1], bool)
        last[self._found(self._ids())] = True
        return last

    def _found(self, wanted: pa.Array | pa.ChunkedArray) -> np.ndarray:
        ids = self._ids()
        from_last = pc.index_in(wanted, value_set=ids.take(np.arange(len(ids))[::-1]))
        return len(ids) - 1 - pc.fill_null(from_last, len(ids)).to_numpy(zero_copy_only=False).astype(np.int64)

    def _ids(self) -> pa.ChunkedArray:
        return pa.chunked_array([batch["query_id"] for batch in self._batches], pa.string())

    @cached_property
    def _at(self) -> dict[str, int]:
        """For whoever asks for one question after another."""
        return {query_id: at for at, query_id in enumerate(self._ids().to_pylist())}


def _write(path: Path, batches: Iterable[pa.RecordBatch], metadata: Mapping[bytes, bytes] | None = None) -> None:
    schema = SCHEMA.with_metadata(dict(metadata or {}))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            if len(batch):
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
