"""Tokenise once: token ids of many texts in one memory-mapped file, keyed by all that made them."""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from uar.collections.collection import Collection
from uar.launch.bars import bar
from uar.storage.copies import first_of_hashes
from uar.storage.files import cache_dir, digest, is_whole, read_json, whole_dir, write_array, write_json
from uar.storage.locks import alone, built_once
from uar.storage.segments import ends_of

log = logging.getLogger(__name__)
BLOCK = 4_096  # texts that are tokenised at once
PART = 262_144  # texts that are kept together until all are there
HASHED = 65_536  # rows whose tokens are compared at once
MIX = np.uint64(0x9E3779B97F4A7C15)
SAID: set[str] = set()  # keys of tokens of queries that were said to be cut
HASHES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # of tokenizers, which do not change once they have made tokens


class Tokens:
    """Token ids by row: `tokens[row]` is an int array with the special tokens in place. `key` names texts, tokenizer and
    lengths. `cut`: texts that had more tokens."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, folder.name
        manifest = read_json(folder / "manifest.json")
        self._ids = (
            np.memmap(folder / "ids.bin", dtype=manifest["dtype"], mode="r") if manifest["tokens"] else np.zeros(0, np.int32)
        )
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")
        self.cut = int(manifest.get("cut", 0))  # which earlier versions did not count

    def __reduce__(self) -> tuple[type["Tokens"], tuple[Path]]:
        return Tokens, (self.folder,)  # another process opens the files, it is not sent their content

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return np.asarray(self._ids[self._ends[row] : self._ends[row + 1]], dtype=np.int64)

    @cached_property
    def first_copies(self) -> np.ndarray:
        """(rows,) the first row of the same tokens, by row. Looked for once, and kept beside the tokens."""
        path = self.folder / "first_copies.npy"
        if not path.is_file():
            with alone(self.folder / "first_copies.lock"):
                if not path.is_file():
                    write_array(path, self._copies())
        return np.load(path, mmap_mode="r")

    def _copies(self) -> np.ndarray:
        hashes = np.concatenate([np.zeros(0, np.uint64), *self._hashes()])
        first = first_of_hashes(hashes)
        for row in np.flatnonzero(first != np.arange(len(first))).tolist():
            if not np.array_equal(self[row], self[int(first[row])]):  # two contents of one hash
                first[row] = row
        return first.astype(np.int32)

    def _hashes(self) -> Iterator[np.ndarray]:
        """(rows,) 64 bits of the tokens of each, a block at a time: a sum over their places of mixed ids times odd numbers."""
        longest = int(self.lengths().max(initial=1))
        odd = np.random.default_rng(0).integers(1 << 63, size=longest, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        for start in range(0, len(self), HASHED):
            ends = np.asarray(self._ends[start : start + HASHED + 1])
            sizes = np.diff(ends)
            ids = self._ids[ends[0] : ends[-1]].astype(np.uint64) + np.uint64(1)
            ids *= MIX
            ids ^= ids >> np.uint64(29)
            ids *= odd[np.arange(len(ids)) - np.repeat(ends[:-1] - ends[0], sizes)]
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(ids, dtype=np.uint64)])
            yield sums[ends[1:] - ends[0]] - sums[ends[:-1] - ends[0]]

    def lengths(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Tokens a row, of the given rows or of all."""
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows)
        return self._ends[wanted + 1] - self._ends[wanted]


def tokenise(
    texts: Iterable[str],
    content_hash: str,
    tokenizer: Any,
    max_length: int,
    prefix: str = "",
    number: int | None = None,
    bare: bool = False,
    cache: Path | None = None,
) -> Tokens:
    """Token ids of `texts` from the `cache`, or made now. `content_hash` names the texts and their order; `number`: how many
    they are, where it is known; `bare`: without the special tokens."""
    key = digest(content_hash, _tokenizer_hash(tokenizer), max_length, prefix, *(["bare"] if bare else []))
    folder = (cache or cache_dir()) / "tokens" / key
    build = partial(_build, folder, texts, tokenizer, max_length, prefix, number, bare)
    return Tokens(built_once(folder, build))


def corpus_tokens(collection: Collection, tokenizer: Any, max_length: int, prefix: str = "", bare: bool = False) -> Tokens:
    """Tokens of every passage, by corpus row."""
    corpus = collection.corpus
    return tokenise(corpus.texts(), corpus.hash, tokenizer, max_length, prefix, len(corpus), bare, corpus.cache)


def query_tokens(collection: Collection, tokenizer: Any, max_length: int, prefix: str = "", bare: bool = False) -> Tokens:
    """Tokens of the split's queries, in the order of `collection.queries`; how many are cut is said, and how much of them."""
    texts = [q.text for q in collection.queries.values()]
    tokens = tokenise(texts, digest(texts), tokenizer, max_length, prefix, len(texts), bare, collection.corpus.cache)
    if tokens.cut and tokens.key not in SAID:
        line = (
            "%s: %d of %d queries have more than %d tokens and are cut there, which loses %.1f %% of all tokens; encoders "
            "take a larger query_length=, for texts that are added to queries expand.query_length="
        )
        whole = _whole_length(tokenizer, [prefix + text for text in texts], bare)
        lost = 100 * (1 - int(tokens.lengths().sum()) / whole)
        log.warning(line, collection.slug, tokens.cut, len(texts), max_length, lost)
        SAID.add(tokens.key)
    return tokens


def _tokenizer_hash(tokenizer: Any) -> str:
    """Hash of vocabulary and rules, and of where texts are cut and whether special tokens in them are text, unless that is as
    for most; the truncation and padding that the last call left behind do not count."""
    if tokenizer not in HASHES:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        kept = {name: value for name, value in rules.items() if name not in {"truncation", "padding"}}
        ways = [tokenizer.truncation_side, tokenizer.split_special_tokens]
        HASHES[tokenizer] = digest(kept, *([] if ways == ["right", False] else ways))
    return HASHES[tokenizer]


def _build(
    folder: Path, texts: Iterable[str], tokenizer: Any, max_length: int, prefix: str, number: int | None, bare: bool
) -> None:
    """Part by part, so that what a killed process made is found again."""
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.int32
    parts = folder.with_name(f"{folder.name}-parts")
    made = []
    with bar("tokenise", number, "texts") as shown:
        for at, some in enumerate(_blocks(texts, PART)):
            made.append(parts / str(at))
            if is_whole(made[-1]):
                shown.advance(len(some))
                shown.time_from_here()
                continue
            with whole_dir(made[-1]) as beside, (beside / "ids.bin").open("wb") as file:
                lengths: list[int] = []  # below 0 of a text that was cut
                for block in _blocks(some, BLOCK):
                    ids = _encoded(tokenizer, [prefix + text for text in block], max_length, bare)
                    lengths += [-len(kept) if cut else len(kept) for kept, cut in ids]
                    kept = chain.from_iterable(kept for kept, _ in ids)
                    file.write(np.fromiter(kept, dtype, sum(len(kept) for kept, _ in ids)).tobytes())
                    shown.advance(len(block))
                np.save(beside / "lengths.npy", np.array(lengths, np.int64))
    of_all = np.concatenate([np.zeros(0, np.int64), *(np.load(part / "lengths.npy") for part in made)])
    ends = ends_of(np.abs(of_all))
    with whole_dir(folder) as beside:
        with (beside / "ids.bin").open("wb") as file:
            for part in made:
                with (part / "ids.bin").open("rb") as of_part:
                    shutil.copyfileobj(of_part, file)
        np.save(beside / "ends.npy", ends)
        cut = int((of_all < 0).sum())
        about = {"dtype": np.dtype(dtype).name, "tokens": int(ends[-1]), "max_length": max_length, "cut": cut}
        write_json(beside / "manifest.json", about)
    shutil.rmtree(parts, ignore_errors=True)
    log.info("Tokenised %d texts once into %s (%d are cut at %d tokens)", len(ends) - 1, folder, cut, max_length)


def _encoded(tokenizer: Any, texts: Sequence[str], max_length: int, bare: bool) -> list[tuple[list[int], bool]]:
    """What `tokenizer(texts, truncation=True)` gives as `input_ids`, without the Python lists that it makes of everything
    else, and whether more was cut off."""
    rust = tokenizer.backend_tokenizer
    rust.encode_special_tokens = tokenizer.split_special_tokens
    rust.no_padding()
    rust.enable_truncation(max_length, direction=tokenizer.truncation_side)
    return [
        (encoding.ids, bool(encoding.overflowing)) for encoding in rust.encode_batch_fast(texts, add_special_tokens=not bare)
    ]


def _whole_length(tokenizer: Any, texts: Sequence[str], bare: bool) -> int:
    """Tokens of all texts together, where none is cut."""
    rust = tokenizer.backend_tokenizer
    rust.encode_special_tokens = tokenizer.split_special_tokens
    rust.no_padding()
    rust.no_truncation()
    return sum(
        len(encoding.ids)
        for block in _blocks(texts, BLOCK)
        for encoding in rust.encode_batch_fast(block, add_special_tokens=not bare)
    )


def _blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while block := list(islice(iterator, size)):
        yield block
