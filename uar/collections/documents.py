"""Passages in a memory-mapped Arrow file, found by row or by id without a dictionary of ids."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uar.collections.languages import AUTO, language_of
from uar.collections.mapped_strings import MappedStrings
from uar.errors import UserError
from uar.storage.copies import hashes_of
from uar.storage.files import cache_dir, read_json, whole_dir, write_array, write_json
from uar.storage.mapped_file import MappedFile, leave_array

log = logging.getLogger(__name__)
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
BLOCK = 16_384
SAMPLE, LETTERS = 500, 500  # passages and letters of each that say the language


def _key(doc_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(doc_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class Corpus:
    """A built corpus folder: `corpus.arrow` (id, title, text), `keys.npy` and `rows.npy` (hashes of ids, sorted), and
    once it was asked for, `texts.npy` (hashes of texts). `cache`: where what is made of it lies, None is `cache_dir()`."""

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self.folder, self._cache = folder, cache
        self._file = MappedFile(folder / "corpus.arrow")
        self._table = self._file.table()
        self._keys = np.load(folder / "keys.npy", mmap_mode="r")
        self._rows = np.load(folder / "rows.npy", mmap_mode="r")
        self.hash: str = read_json(folder / "manifest.json")["hash"]

    @property
    def cache(self) -> Path:
        return self._cache or cache_dir()

    @cached_property
    def language(self) -> str:
        """The language of the passages, by their script where nobody said it."""
        step = max(1, len(self) // SAMPLE)
        code = language_of(text[:LETTERS] for text in self.texts(range(0, len(self), step)))
        if code != "en":
            log.info("language=%s by the script of the passages; language=CODE, or collection.json, says another", code)
        return code

    def in_language(self, code: str) -> "Corpus":
        """The corpus as one of a language that somebody said; `auto` leaves it as it is."""
        if code == AUTO:
            return self
        known = copy(self)
        known.__dict__["language"] = code
        return known

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def row(self, doc_id: str) -> int:
        """Row of a passage id; -1 where the corpus has no such id."""
        key = np.uint64(_key(doc_id))
        at = int(np.searchsorted(self._keys, key))
        while at < len(self._keys) and self._keys[at] == key:
            row = int(self._rows[at])
            if self.id(row) == doc_id:
                return row
            at += 1
        return -1

    def find(self, doc_ids: Sequence[str]) -> np.ndarray:
        """Rows of many ids, looked up at once; -1 where the corpus has no such id."""
        if not len(doc_ids):
            return np.zeros(0, np.int64)
        keys = np.fromiter(map(_key, doc_ids), np.uint64, len(doc_ids))
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        rows = np.asarray(self._rows[at], np.int64)
        there = self._table["id"].take(pa.array(rows)).to_pylist()
        for place, (doc_id, found) in enumerate(zip(doc_ids, there, strict=True)):
            if doc_id != found:  # not there, or one of several ids with the same key
                rows[place] = self.row(doc_id)
        return rows

    def rows(self, doc_ids: Sequence[str]) -> list[int]:
        """Rows of many ids; UserError where one is missing."""
        found: list[int] = self.find(doc_ids).tolist()
        if -1 in found:
            raise UserError(f"passage id {doc_ids[found.index(-1)]!r} is not in the corpus {self.folder.name}")
        return found

    def id(self, row: int) -> str:
        return str(self._table["id"][row].as_py())

    def ids_at(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Ids of some rows."""
        return self._strings["id"].at(rows)

    def id_column(self, rows: Sequence[int] | np.ndarray) -> pa.ChunkedArray:
        """Ids of many rows, without a Python string of each."""
        return self._table["id"].take(pa.array(rows, pa.int64()))

    def id_ranks(self) -> np.ndarray:
        """The place of each row's id among all ids in ascending order."""
        ranks = np.empty(len(self), np.int64)
        ranks[pc.sort_indices(self._table["id"]).to_numpy()] = np.arange(len(self))
        return ranks

    def ids(self) -> Iterator[str]:
        """All ids in row order, a block at a time."""
        for batch in self._table.select(["id"]).to_batches(max_chunksize=BLOCK):
            yield from map(str, batch["id"].to_pylist())

    def text(self, row: int) -> str:
        """Title and text as one string, as retrievers and prompts see a passage."""
        return _text(self._table["title"][row].as_py(), self._table["text"][row].as_py())

    def texts_at(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The texts of some rows, all at once."""
        return [_text(*parts) for parts in zip(self._strings["title"].at(rows), self._strings["text"].at(rows), strict=True)]

    def leave(self) -> None:
        """Take what was read of the files out of this process's memory; it comes back when it is read again."""
        self._file.leave()
        for array in (self._keys, self._rows):
            leave_array(array)

    @cached_property
    def _strings(self) -> dict[str, MappedStrings]:
        return {name: MappedStrings(self._table[name], self._file.buffer) for name in SCHEMA.names}

    @cached_property
    def text_hashes(self) -> np.ndarray:
        """(passages,) of 64 bits. Made once."""
        path = self.folder / "texts.npy"
        if path.is_file():
            return np.asarray(np.load(path, mmap_mode="r"))
        blocks = [hashes_of(t.encode("utf-8", "surrogatepass") for t in _texts(batch)) for batch in self._batches()]
        hashes = np.concatenate(blocks)
        if os.access(self.folder, os.W_OK):
            write_array(path, hashes)
        return hashes

    def parts(self, doc_id: str) -> tuple[str, str]:
        """(title, text) of a passage id."""
        row = self.rows([doc_id])[0]
        return str(self._table["title"][row].as_py()), str(self._table["text"][row].as_py())

    def passages(self) -> Iterator[tuple[str, str, str]]:
        """(id, title, text) of all passages in row order, a block at a time."""
        for batch in self._batches():
            yield from zip(*(batch[name].to_pylist() for name in SCHEMA.names), strict=True)

    def texts(self, rows: Iterable[int] | None = None) -> Iterator[str]:
        """Texts of the given rows, or of all, a block at a time."""
        if rows is not None:
            yield from map(self.text, rows)
            return
        for batch in self._batches():
            yield from _texts(batch)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """As they were written, read without the mapping, whose pages would stay in memory."""
        with pa.OSFile(str(self.folder / "corpus.arrow")) as source:
            reader = pa.ipc.open_file(source)
            yield from map(reader.get_batch, range(reader.num_record_batches))


def _texts(batch: pa.RecordBatch) -> Iterator[str]:
    yield from map(_text, batch["title"].to_pylist(), batch["text"].to_pylist())


def _text(title: str, text: str) -> str:
    return f"{title} {text}" if title else text


def build_corpus(folder: Path, passages: Iterable[tuple[str, str, str]], content_hash: str | None = None) -> Corpus:
    """Write (id, title, text) rows to `folder` and open it. Raises `DuplicateId`, or UserError for an empty corpus.

    `content_hash` names the content where it is known beforehand; else the rows are hashed while written.
    """
    running = hashlib.blake2b(digest_size=16)
    keys: list[int] = []
    with whole_dir(folder) as beside:
        with pa.OSFile(str(beside / "corpus.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for block in _blocks(passages):
                columns = [list(column) for column in zip(*block, strict=True)]
                keys.extend(map(_key, columns[0]))
                if content_hash is None:
                    running.update(json.dumps(columns, ensure_ascii=False).encode("utf-8", "surrogatepass"))
                writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
        if not keys:
            raise UserError("the corpus has no passages; at least one is needed")
        unsorted = np.array(keys, dtype=np.uint64)
        order = np.argsort(unsorted, kind="stable")
        np.save(beside / "keys.npy", unsorted[order])
        np.save(beside / "rows.npy", order.astype(np.int64))
        write_json(beside / "manifest.json", {"hash": content_hash or running.hexdigest(), "passages": len(keys)})
        _refuse_duplicates(Corpus(beside), unsorted[order], order)
    return Corpus(folder)


class DuplicateId(Exception):
    """Two rows of one corpus carry the same id."""

    def __init__(self, doc_id: str, first: int, second: int) -> None:
        super().__init__(f"duplicate passage id {doc_id!r} in rows {first + 1} and {second + 1}")
        self.doc_id, self.first, self.second = doc_id, first, second


def _refuse_duplicates(corpus: Corpus, keys: np.ndarray, order: np.ndarray) -> None:
    for at in np.flatnonzero(keys[1:] == keys[:-1]):
        first, second = sorted((int(order[at]), int(order[at + 1])))
        if corpus.id(first) == corpus.id(second):
            raise DuplicateId(corpus.id(first), first, second)


def _blocks(passages: Iterable[tuple[str, str, str]]) -> Iterator[list[tuple[str, str, str]]]:
    block: list[tuple[str, str, str]] = []
    for passage in passages:
        block.append(passage)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block
