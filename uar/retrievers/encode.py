"""Encoding into fp16 shards: memory does not grow with the corpus, and an interrupted run goes on where it was."""

from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from uar.collections.tokens import Tokens
from uar.files import write_json
from uar.precision import resolve_dtype
from uar.retrievers.bi_encoder import BiEncoder

SHARD = 65_536  # passages a shard: fixed blocks of the corpus, whoever encodes them


def encode_corpus(retriever: BiEncoder, tokens: Tokens, folder: Path, precision: str = "auto") -> list[Path]:
    """Write `shard-00000.npy`, … ((passages, dim) fp16) for all rows; shards with a done-mark are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    starts = range(0, len(tokens), SHARD)
    for number, start in enumerate(track(starts, description="encode", disable=len(starts) < 2)):
        path = folder / f"shard-{number:05d}.npy"
        shards.append(path)
        done = path.with_suffix(".done")
        if done.is_file():
            continue
        stop = min(start + SHARD, len(tokens))
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(stop - start, retriever.dim))
        _fill(retriever, tokens, np.arange(start, stop), array, precision)
        array.flush()
        write_json(done, {"start": start, "stop": stop})
    return shards


@torch.inference_mode()
def encode_rows(
    retriever: BiEncoder, tokens: Tokens, rows: list[int], precision: str = "auto", role: str = "passage"
) -> np.ndarray:
    """(rows, dim) fp32 vectors of some rows. `role`: what the texts are, query or passage."""
    retriever.eval()
    dtype = resolve_dtype(precision)
    with torch.autocast(retriever.device.type, dtype=dtype, enabled=dtype != torch.float32):
        return retriever([tokens[row] for row in rows], role=role).float().cpu().numpy()


def encode_many(retriever: BiEncoder, tokens: Tokens, rows: np.ndarray, precision: str = "auto") -> np.ndarray:
    """(rows, dim) fp16 vectors of many rows, however they lie in the corpus."""
    out = np.empty((len(rows), retriever.dim), np.float16)
    _fill(retriever, tokens, rows, out, precision)
    return out


def _fill(retriever: BiEncoder, tokens: Tokens, rows: np.ndarray, out: np.ndarray, precision: str) -> None:
    """Longest first, in blocks, so that what is padded and held at once is small."""
    order = np.argsort(-tokens.lengths(rows), kind="stable")
    for block in np.array_split(order, max(1, len(order) // 2_048)):
        out[block] = encode_rows(retriever, tokens, [int(row) for row in rows[block]], precision)
