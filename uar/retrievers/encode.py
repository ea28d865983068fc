"""Encoding into fp16 shards: memory does not grow with the corpus, an interrupted run goes on where it was, and any number of
processes write the same files."""

import io
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uar.collections.token_ids import Tokens
from uar.errors import UserError
from uar.launch.bars import Bar, bar
from uar.machine.children import run_children
from uar.machine.feed import ahead, fetched
from uar.machine.precision import device, name_of, resolve_dtype
from uar.machine.workers import VISIBLE, Workers, chosen_workers, visible
from uar.retrievers.shard_folder import DOING, SHARD, by_length, encoding, filling, rows_of_shard
from uar.retrievers.trainable import Encoder
from uar.storage.files import write_array

BLOCK, ON_CPU = 2_048, 256  # passages encoded at a time; on a CPU each takes some milliseconds


def encode_corpus(
    retriever: Encoder,
    tokens: Tokens,
    folder: Path,
    precision: str = "auto",
    processes: int = 1,
    shard: int = SHARD,
    made: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `shard-00000.npy`, … ((passages, dim) fp16) for all rows. Shards that are there are kept; UserError where they are
    of another model or other texts.

    `processes`: so many beside each other, on as many GPUs where there are any; `chosen_workers` are asked in their place.
    `shard`: passages a shard. `made`: what `made_by` says, where that is known already.
    """
    made = made or made_by(retriever, tokens, precision, shard)
    shards = [folder / f"shard-{number:05d}.npy" for number in range(-(-len(tokens) // shard))]
    with filling(folder, made, [[shard] for shard in shards]) as missing:
        sizes = {number: len(rows_of_shard(number, shard, len(tokens))) for number in missing}
        workers = chosen_workers()
        with encoding(sum(sizes.values())) as shown:
            if workers and missing:
                _encode_on(workers, retriever, tokens, folder, precision, shard, missing, shown)
            elif processes > 1 and len(missing) > 1:
                parts = [missing[rank::processes] for rank in range(min(processes, len(missing)))]
                work = retriever, tokens, folder, precision, shard, parts

                def look() -> None:
                    shown.at(sum(size for number, size in sizes.items() if shards[number].is_file()))

                run_children(_work, len(parts), work, look)
            else:
                _encode(retriever, tokens, folder, precision, shard, missing, shown)
    return shards


def _encode_on(
    workers: Workers,
    retriever: Encoder,
    tokens: Tokens,
    folder: Path,
    precision: str,
    shard: int,
    numbers: list[int],
    shown: Bar,
) -> None:
    """On their machines, in the precision that this one chooses, so that all shards are of one."""
    model = io.BytesIO()
    torch.save(retriever, model)
    dtype = name_of(resolve_dtype(precision))
    place = folder.absolute()
    opener = partial(_opened, model.getvalue(), tokens, place, dtype, shard)
    with workers.opened(opener, len(numbers), written=place) as crew:
        for at, _ in crew.each(numbers):
            path = folder / f"shard-{numbers[at]:05d}.npy"
            if not visible(path):
                raise UserError(
                    f"{path}: a worker wrote it, and it is not here {VISIBLE:g} s later; all must share the folder"
                )
            shown.advance(len(rows_of_shard(numbers[at], shard, len(tokens))))


def _opened(model: bytes, tokens: Tokens, folder: Path, precision: str, shard: int) -> Callable[[int, None], None]:
    """What encodes the shard of a number, in a worker."""
    retriever: Encoder = torch.load(io.BytesIO(model), map_location="cpu", weights_only=False).to(device())

    def encode(number: int, _: None) -> None:
        with bar(DOING, None, "passages") as shown:
            _encode(retriever, tokens, folder, precision, shard, [number], shown)

    return encode


def _work(
    rank: int, retriever: Encoder, tokens: Tokens, folder: Path, precision: str, shard: int, parts: list[list[int]]
) -> None:
    if torch.cuda.is_available():
        retriever = retriever.to(torch.device("cuda", rank % torch.cuda.device_count()))
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(parts)))
    with bar(DOING, None, "passages") as shown:
        _encode(retriever, tokens, folder, precision, shard, parts[rank], shown)


def _encode(
    retriever: Encoder, tokens: Tokens, folder: Path, precision: str, shard: int, numbers: list[int], shown: Bar
) -> None:
    for number in numbers:
        vectors = _counted(retriever, tokens, rows_of_shard(number, shard, len(tokens)), precision, shown)
        write_array(folder / f"shard-{number:05d}.npy", vectors)


def made_by(retriever: Encoder, tokens: Tokens, precision: str = "auto", shard: int = SHARD) -> dict[str, Any]:
    """All that makes the vectors of a corpus; it reads every weight."""
    dtype = str(resolve_dtype(precision)).removeprefix("torch.")
    return {
        "weights": retriever.weights_key(),
        "texts": tokens.key,
        "precision": dtype,
        "dim": retriever.dim,
        "shard": shard,
    }


def encode_rows(
    retriever: Encoder, tokens: Tokens, rows: list[int], precision: str = "auto", role: str = "passage"
) -> np.ndarray:
    """(rows, dim) fp32 vectors of some rows; UserError where one is not finite. `role`: query or passage."""
    vectors = _vectors(retriever, [tokens[row] for row in rows], precision, torch.float32, role)
    return _finite(vectors.cpu().numpy(), retriever, precision)


@torch.inference_mode()
def _vectors(
    retriever: Encoder, texts: list[np.ndarray], precision: str, kept: torch.dtype, role: str = "passage"
) -> torch.Tensor:
    """(texts, dim) in the type in which they are `kept`, on the retriever's device."""
    retriever.eval()
    dtype = resolve_dtype(precision)
    with torch.autocast(retriever.device.type, dtype=dtype, enabled=dtype != torch.float32):
        return retriever(texts, role=role).to(kept)


def encode_many(retriever: Encoder, tokens: Tokens, rows: np.ndarray, precision: str = "auto") -> np.ndarray:
    """(rows, dim) fp16 vectors of many rows, however they lie in the corpus. UserError where one is not finite in fp16."""
    with bar(DOING, len(rows), "passages") as shown:
        return _counted(retriever, tokens, rows, precision, shown)


def _counted(retriever: Encoder, tokens: Tokens, rows: np.ndarray, precision: str, shown: Bar) -> np.ndarray:
    out = np.empty((len(rows), retriever.dim), np.float16)
    blocks = by_length(tokens.lengths(rows), ON_CPU if retriever.device.type == "cpu" else BLOCK)
    read = ahead(((block, [tokens[int(row)] for row in rows[block]]) for block in blocks), retriever.device)
    made = ((block, _vectors(retriever, texts, precision, torch.float16)) for block, texts in read)
    for block, vectors in fetched(made):
        out[block] = _finite(vectors, retriever, precision)
        shown.advance(len(block))
    return out


def _finite(vectors: np.ndarray, retriever: Encoder, precision: str) -> np.ndarray:
    """The vectors; a search would rank those that are nan or infinite without a word."""
    wrong = int((~np.isfinite(vectors).all(axis=1)).sum())
    if wrong:
        raise UserError(
            f"{retriever.name}: {wrong} of {len(vectors)} vectors are nan or too large for {vectors.dtype} (precision="
            f"{precision}), and get no score; train with a smaller training.learning_rate or trainer.precision=fp32, search "
            "with search.precision=fp32, or use a model with retriever.normalize=true"
        )
    return vectors
