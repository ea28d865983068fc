"""Tokenise once: token ids of many texts in one memory-mapped file, keyed by all that made them."""

import json
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from uar.collections.collection import Collection
from uar.launch.bars import bar
from uar.storage.files import cache_dir, digest, is_whole, read_json, whole_dir, write_json

log = logging.getLogger(__name__)
BLOCK = 4_096
HASHES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # of tokenizers, which do not change once they have made tokens


class Tokens:
    """Token ids by row: `tokens[row]` is an int array with the special tokens in place. `key` names texts, tokenizer and
    lengths."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, folder.name
        manifest = read_json(folder / "manifest.json")
        self._ids = (
            np.memmap(folder / "ids.bin", dtype=manifest["dtype"], mode="r") if manifest["tokens"] else np.zeros(0, np.int32)
        )
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[type["Tokens"], tuple[Path]]:
        return Tokens, (self.folder,)  # another process opens the files, it is not sent their content

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return np.asarray(self._ids[self._ends[row] : self._ends[row + 1]], dtype=np.int64)

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
) -> Tokens:
    """Token ids of `texts` from the cache, or made now. `content_hash` names the texts and their order; `number`: how many
    they are, where it is known; `bare`: without the special tokens."""
    key = digest(content_hash, _tokenizer_hash(tokenizer), max_length, prefix, *(["bare"] if bare else []))
    folder = cache_dir() / "tokens" / key
    if not is_whole(folder):
        _build(folder, texts, tokenizer, max_length, prefix, number, bare)
    return Tokens(folder)


def corpus_tokens(collection: Collection, tokenizer: Any, max_length: int, prefix: str = "", bare: bool = False) -> Tokens:
    """Tokens of every passage, by corpus row."""
    corpus = collection.corpus
    return tokenise(corpus.texts(), corpus.hash, tokenizer, max_length, prefix, len(corpus), bare)


def query_tokens(collection: Collection, tokenizer: Any, max_length: int, prefix: str = "", bare: bool = False) -> Tokens:
    """Tokens of the split's queries, in the order of `collection.queries`."""
    texts = [q.text for q in collection.queries.values()]
    return tokenise(texts, digest(texts), tokenizer, max_length, prefix, len(texts), bare)


def _tokenizer_hash(tokenizer: Any) -> str:
    """Hash of vocabulary and rules; the truncation and padding that the last call left behind do not count."""
    if tokenizer not in HASHES:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        HASHES[tokenizer] = digest({name: value for name, value in rules.items() if name not in {"truncation", "padding"}})
    return HASHES[tokenizer]


def _build(
    folder: Path, texts: Iterable[str], tokenizer: Any, max_length: int, prefix: str, number: int | None, bare: bool
) -> None:
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.int32
    ends = [0]
    with whole_dir(folder) as beside, bar("tokenise", number, "texts") as shown:
        with (beside / "ids.bin").open("wb") as file:
            for block in _blocks(texts):
                encoded = tokenizer(
                    [prefix + text for text in block],
                    truncation=True,
                    max_length=max_length,
                    add_special_tokens=not bare,
                    return_attention_mask=False,
                )
                for ids in encoded["input_ids"]:
                    ends.append(ends[-1] + len(ids))
                    file.write(np.asarray(ids, dtype=dtype).tobytes())
                shown.advance(len(block))
        np.save(beside / "ends.npy", np.asarray(ends, dtype=np.int64))
        write_json(beside / "manifest.json", {"dtype": np.dtype(dtype).name, "tokens": ends[-1], "max_length": max_length})
    log.info("Tokenised %d texts once into %s", len(ends) - 1, folder)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while block := list(islice(iterator, BLOCK)):
        yield block
