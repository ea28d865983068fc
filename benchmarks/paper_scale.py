"""The size of arXiv 2504.05220 without an LLM and a GPU: what each command costs on a synthetic collection.

    python benchmarks/paper_scale.py [share=1.0] [folder=DIR] [steps=empty,tokens,labels,start,ranks,import,index,pools]
                                     [questions=200] [words=80] [replies=1]

491,007 questions with pools of 31 over 8.84 M passages, times `share`: words by Zipf's law, one gold passage a question,
replies to RelSel, the answer and UtilSel in a store. All lies in `folder`, cache and runs too, and what is there is not made
again, so that steps may be run one by one; without it a temporary folder is used. `words`: of a passage, at most; with few of
them, and `replies=0`, which writes what was concluded in place of the replies, the steps that read no text (`start` and
`ranks`) can be run at full size in little time. The steps:

- `empty`: train.py on `mini`, to step 1. Its memory and seconds are in those of every other step.
- `tokens`: the corpus built, tokenised, and step 1 on human labels of 64 questions.
- `labels`: train.py on the LLM's labels, to step 1, which reads all replies from the store.
- `start`: the same again. `ranks`: the same again in two processes.
- `import`: annotate.py annotator=import of a file of all pairs, with agreement and all files.
- `index`: BM25's index, and the pools of 8 questions. `pools`: those of `questions` more.

Memory is the peak of the largest process, its part that is of no mapped file, and that of all together; disk is what the
step left in the cache and its run.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from command_line import called
from process_tree import Cost, run_measured
from rich.console import Console
from rich.table import Table
from synthetic_collection import MODEL, prepare

PASSAGES, QUESTIONS = 8_841_823, 491_007
ROOT = Path(__file__).resolve().parent.parent
STEP_1 = [
    "trainer.max_steps=1",
    "training.batch_size=2",
    "baselines=[]",
    "dataset.dev=null",
    "dataset.test=[]",
    "logger=none",
    "rag=off",
]
LLM = ["llm=openai", f"llm.model={MODEL}", "llm.base_urls=[http://127.0.0.1:9/v1]", "annotator=utilsel"]
Step = Callable[[], list[str]]


class Rehearsal:
    """`folder`: of the collection, the store, the cache and the runs."""

    def __init__(self, folder: Path, questions: int) -> None:
        self.folder, self.questions = folder, questions
        local = ["dataset=local", f"dataset.path={folder / 'collection'}"]
        llm = [*local, *LLM, f"store={folder / 'annotations'}", "label_source=llm", "candidates.depth=31"]
        imported = ["annotator=import", f"annotator.path={folder / 'labels'}", f"store={folder / 'imported'}"]
        given = ["candidates=given", f"candidates.path={folder / 'some.jsonl'}"]
        pools = [*local, "label_source=human", "candidates=bm25", "candidates.depth=31", *STEP_1]
        self.steps = {
            "empty": self._train("label_source=human", "limit=32", *STEP_1),
            "tokens": self._train("label_source=human", *given, "limit=64", *local, *STEP_1),
            "labels": self._train(*llm, *STEP_1),
            "start": self._train(*llm, *STEP_1),
            "ranks": self._train(*llm, *STEP_1, "trainer.devices=2", "trainer.accelerator=cpu"),
            "import": [sys.executable, str(ROOT / "annotate.py"), *local, *imported, "logger=none"],
            "index": self._train(*pools, "limit=8"),
            "pools": self._train(*pools, f"limit={questions}"),
        }

    def _train(self, *options: str) -> list[str]:
        return [sys.executable, str(ROOT / "train.py"), *options]

    def run(self, name: str) -> tuple[Cost, int]:
        """What a step costs, and the bytes that it leaves."""
        import os

        os.environ["UAR_CACHE"] = str(self.folder / "cache")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        before = _size(self.folder)
        run = self.folder / "runs" / name
        cost = run_measured([*self.steps[name], f"hydra.run.dir={run}"], self.folder, self.folder / f"{name}.log")
        return cost, _size(self.folder) - before


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(
    share: float = 1.0, folder: str = "", steps: str = "", questions: int = 200, words: int = 80, replies: int = 1
) -> None:
    table = Table("step", "wall s", "CPU s", "largest process MiB", "of no file MiB", "together MiB", "left on disk MiB")
    with tempfile.TemporaryDirectory(prefix="uar-scale-") as temporary:
        place = Path(folder or temporary).resolve()
        place.mkdir(parents=True, exist_ok=True)
        rehearsal = Rehearsal(place, questions)
        chosen = steps.split(",") if steps else list(rehearsal.steps)
        unknown = [name for name in chosen if name not in rehearsal.steps]
        if unknown:
            raise SystemExit(f"steps={unknown[0]}: unknown; allowed: {', '.join(rehearsal.steps)}")
        prepare(place, round(share * PASSAGES), round(share * QUESTIONS), words, bool(replies))
        for name in chosen:
            cost, left = rehearsal.run(name)
            bytes_of = (cost.largest, cost.anonymous, cost.together)
            memory = [f"{value / 2**20:,.0f}" for value in bytes_of]
            table.add_row(name, f"{cost.wall:.1f}", f"{cost.cpu:.1f}", *memory, f"{left / 2**20:,.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    called(main)
