"""BM25 at a share of the size of arXiv 2504.05220: its index and the pools of some questions, by one core.

    python benchmarks/bm25.py [share=0.02] [folder=DIR] [questions=200]

The collection is that of `paper_scale.py`, with passages of 30 to 80 words. All lies in `folder`, and what is there is not
made again; without it a temporary folder is used. Memory is the peak of this process while the index is built, and its part
that is of no mapped file.
"""

import os
import tempfile
import threading
import time
from pathlib import Path

from command_line import called
from memory import anonymous, resident
from rich.console import Console
from synthetic_collection import prepared_collection

from uar.retrievers.bm25.lexical_index import BM25

PASSAGES, QUESTIONS, DEPTH = 8_841_823, 491_007, 31
EVERY = 0.05  # seconds


class Peak(threading.Thread):
    """Bytes at most until it is stopped: all of them, and those of no file."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = (0, 0)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(EVERY):
            self.most = max(self.most[0], resident()), max(self.most[1], anonymous())

    def stop(self) -> None:
        self._ended.set()
        self.join()


def main(share: float = 0.02, folder: str = "", questions: int = 200) -> None:
    with tempfile.TemporaryDirectory(prefix="uar-bm25-") as temporary:
        place = Path(folder or temporary).resolve()
        os.environ["UAR_CACHE"] = str(place / "cache")
        collection = prepared_collection(place, round(share * PASSAGES), round(share * QUESTIONS))
        collection.corpus.leave()
        peak = Peak()
        peak.start()
        start = time.process_time()
        index = BM25.open(collection.corpus)
        built = time.process_time() - start
        peak.stop()
        size = sum(file.stat().st_size for file in (place / "cache" / "bm25").rglob("*.npy"))
        terms = index._terms([collection.queries[q].text for q in collection.head(questions)])
        index._best_of(DEPTH, terms[0])  # compiled
        start = time.process_time()
        for own in terms:
            index._best_of(DEPTH, own)
        each = (time.process_time() - start) / len(terms)
    memory = ", ".join(f"{most / 2**20:,.0f}" for most in peak.most)
    told = f"{len(collection.corpus):,} passages: index {built:.1f} s of CPU, {memory} MiB, {size / 2**20:,.1f} MiB on disk; "
    Console(width=160).print(f"{told}{1000 * each:.2f} ms of CPU a question")


if __name__ == "__main__":
    called(main)
