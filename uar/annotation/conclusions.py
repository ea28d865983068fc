"""What chains concluded: judgements by question as columns in one memory-mapped Arrow file."""

import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from uar.annotation.judgement import Judgement
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


class Conclusions:
    """One file. Rows are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = SCHEMA.empty_table()
        self.seen = ""
        if path.is_file():
            with path.open("rb") as file:  # a mapping outlives the file's name, which a later version takes over
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._table = pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
            self.seen = (self._table.schema.metadata or {}).get(SEEN, b"").decode()
        ids, pools = self._table["query_id"].to_pylist(), self._table["pool"].to_pylist()
        self._decoded: tuple[int, list[Row]] = (-1, [])
        self._at = {q: (pool, at) for at, (q, pool) in enumerate(zip(ids, pools, strict=True))}

    def __len__(self) -> int:
        return len(self._at)

    def holds(self, query_id: str, pool: int) -> bool:
        """Whether this pool of the question was concluded."""
        return self._at.get(query_id, (None, 0))[0] == pool

    def judged(self) -> set[str]:
        """The questions whose chain gave judgements."""
        return {q for q, judged in zip(self._at, self._table["judged"].to_pylist(), strict=True) if judged}

    def row(self, query_id: str) -> Row:
        """Of a question that is concluded. Neighbours are decoded with it, since questions are mostly read in order."""
        block, at = divmod(self._at[query_id][1], DECODED)
        if block != self._decoded[0]:
            self._decoded = block, self._table.slice(block * DECODED, DECODED).to_pylist()
        return self._decoded[1][at]

    def with_rows(self, rows: Iterable[Row], seen: str) -> "Conclusions":
        """The file with these rows in place of those of the same questions."""
        fresh = {row["query_id"]: row for row in rows}
        schema = SCHEMA.with_metadata({SEEN: seen.encode()})
        kept = self._table.filter(pa.array([q not in fresh for q in self._at], pa.bool_()))
        with whole_file(self.path) as beside, pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(kept.replace_schema_metadata(schema.metadata), max_chunksize=BLOCK)
            for block in _blocks(list(fresh.values())):
                writer.write_batch(pa.RecordBatch.from_pylist(block, schema=schema))
        return Conclusions(self.path)


def _blocks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
