"""Pools as they are shown, kept in a folder before anything is asked of them: by question, rows of the corpus in order."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uar.collections import Collection
from uar.errors import DataError
from uar.storage.files import write_table

SCHEMA = pa.schema([("query_id", pa.string()), ("question", pa.uint64()), ("rows", pa.list_(pa.int32()))])


class Pool(NamedTuple):
    """`question`: a hash of the question's text and answers; `rows`: of the corpus, in the order shown."""

    question: int
    rows: np.ndarray

    def hash(self) -> int:
        """Of all that is shown, in 64 bits."""
        return _short(self.question.to_bytes(8, "little") + self.rows.astype("<i4").tobytes())


def pools_of(collection: Collection, pools: Mapping[str, Sequence[str]]) -> dict[str, Pool]:
    """Passage ids by query id as pools; UserError where the corpus lacks one."""
    return {q: Pool(question_hash(collection, q), _rows(collection, ids)) for q, ids in pools.items()}


def question_hash(collection: Collection, query_id: str) -> int:
    """Of a question's text and answers, in 64 bits."""
    query = collection.queries[query_id]
    return _short(json.dumps([query.text, query.answers], ensure_ascii=False).encode("utf-8", "surrogatepass"))


def ids_of(collection: Collection, pool: Pool) -> list[str]:
    """The passage ids of a pool, in the order shown."""
    return [collection.corpus.id(row) for row in pool.rows.tolist()]


class StoredPools:
    """Append-only parts in `folder`, each written beside and renamed, so that many processes may write. Of several pools of a
    question the last written counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pools: Mapping[str, Pool]) -> int:
        """Keep the pools that differ from what is kept, and return their number."""
        kept = self.read()
        fresh = {q: pool for q, pool in pools.items() if q not in kept or kept[q].hash() != pool.hash()}
        if fresh:
            columns = [list(fresh), [p.question for p in fresh.values()], [p.rows for p in fresh.values()]]
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
            write_table(self.folder / name, pa.table(columns, schema=SCHEMA), compression="zstd")
        return len(fresh)

    def read(self) -> dict[str, Pool]:
        """By query id. DataError where a file is no part."""
        pools: dict[str, Pool] = {}
        for path in sorted(p for p in self.folder.glob("*.parquet") if not p.name.startswith(".")):
            try:
                table = pq.read_table(path, schema=SCHEMA).combine_chunks()
            except (OSError, pa.ArrowException) as error:
                raise DataError(path, f"not a part of stored pools ({str(error).splitlines()[0]}); move it away") from error
            if not len(table):
                continue
            lists = table["rows"].chunk(0)
            ends, values = lists.offsets.to_numpy(), lists.values.to_numpy()
            questions = table["question"].to_numpy().tolist()
            for at, query_id in enumerate(table["query_id"].to_pylist()):
                pools[query_id] = Pool(questions[at], values[ends[at] : ends[at + 1]])
        return pools


def _rows(collection: Collection, ids: Sequence[str]) -> np.ndarray:
    return np.array(collection.corpus.rows(ids), dtype=np.int32)


def _short(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
