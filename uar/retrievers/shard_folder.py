"""A folder of shards of a corpus, each written once: what a killed command made of it is found again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uar.errors import UserError
from uar.storage.files import read_json, write_json

SHARD = 16_384  # passages a shard: fixed blocks of the corpus, whoever makes them


def open_folder(folder: Path, made: Mapping[str, Any]) -> None:
    """Make the folder, or go on with one that was made by the same; UserError where `made` differs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
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
