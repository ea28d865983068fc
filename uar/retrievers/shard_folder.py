"""A folder of shards of a corpus, each written once: what a killed command made of it is found again."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from uar.errors import UserError
from uar.launch.bars import Bar, bar
from uar.retrievers.vector_shards import MANIFEST
from uar.storage.files import read_json, write_json
from uar.storage.locks import alone

log = logging.getLogger(__name__)
DOING = "encode passages"
SHARD = 16_384  # passages a shard: fixed blocks of the corpus, whoever makes them


@contextmanager
def filling(
    folder: Path, made: Mapping[str, Any], shards: Sequence[Sequence[Path]], doing: str = "Encoding"
) -> Iterator[list[int]]:
    """Numbers of the shards that lack one of their files, for the block to write; where some are whole, it says so. The folder
    is made, or was made by the same; UserError where `made` differs. Another process that fills it is waited for, and what it
    wrote is taken. `shards`: the files of each."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not (folder / MANIFEST).is_file() or _lacking(shards):  # a whole one may be read-only
            stack.enter_context(alone(folder / "filling.lock", doing.lower()))
        _open_folder(folder, made)
        missing = _lacking(shards)
        if 0 < len(missing) < len(shards):
            log.info("%s goes on in %s: %d of %d shards are there", doing, folder, len(shards) - len(missing), len(shards))
        yield missing


def _lacking(shards: Sequence[Sequence[Path]]) -> list[int]:
    return [number for number, files in enumerate(shards) if not all(path.is_file() for path in files)]


def _open_folder(folder: Path, made: Mapping[str, Any]) -> None:
    path = folder / MANIFEST
    if not path.is_file():
        for shard in folder.glob("shard-*"):  # of which nobody can say what made them
            shard.unlink()
        write_json(path, made)
        return
    then = read_json(path)
    changed = [name for name in made if then.get(name) != made[name]]
    if changed:
        raise UserError(
            f"{folder} holds embeddings of another model or corpus ({', '.join(changed)} differ); "
            "give another folder or remove it"
        )


@contextmanager
def encoding(passages: int, done: str = "Encoded") -> Iterator[Bar]:
    """A bar over so many passages, and a line on the time that they took."""
    start = time.monotonic()
    with bar(DOING, passages, "passages") as shown:
        yield shown
    if passages:
        log.info("%s %s passages in %.1f s", done, f"{passages:,}", time.monotonic() - start)


def rows_of_shard(number: int, shard: int, passages: int) -> np.ndarray:
    """Corpus rows of the shard of that number. `shard`: passages of each."""
    return np.arange(number * shard, min((number + 1) * shard, passages))


def by_length(lengths: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Places of texts, longest first, in blocks of about `most`, so that what is padded and held at once is small."""
    order = np.argsort(-lengths, kind="stable")
    yield from np.array_split(order, max(1, len(order) // most))


def in_budget(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Places of texts, longest first, in batches of at most so many tokens, padding included; one text at least."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
