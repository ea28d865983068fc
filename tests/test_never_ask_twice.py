"""No finished call is lost, kept twice or asked again, however often the process that asks is killed."""

import inspect
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from llm_server import LLMServer, Messages, serve

from uar.annotation.annotators import Annotator, Judgement, Likelihood
from uar.llm.call import Question
from uar.llm.chains import Chains
from uar.llm.models import LLM
from uar.llm.models.openai import OpenAI
from uar.llm.record import Outcome, Record
from uar.llm.store.store import Store

COLLECTION, MODEL = "toy.train", "toy@1"
STAGES = ("relsel", "pseudo_answer", "utilsel")
COLUMNS = ["key", "collection", "query_id", "doc_ids", "outcome"]
WINDOW = 16
KILLS = 20
PROGRAM = """
import os
from collections.abc import Sequence
from pathlib import Path
from uar.llm.store import store
from uar.llm.chains import Chains
from uar.llm.models import LLM
from uar.llm.models.openai import OpenAI
from uar.annotation.annotators import UtilSel
from uar.llm.call import Question
{questions}
def annotate():
    print(os.getpid(), "begun", flush=True)
    kept = store.Store(Path({folder!r}))
    print(0, "opened", flush=True)
    os.read(0, 1)
    engine = OpenAI("toy", [{url!r}], window={window})
    chains = Chains(UtilSel(template="utilsel"), kept, {collection!r}, [LLM({model!r}, engine)])
    judged = dict(chains.run(questions({numbers!r})))
    kept.close()
    engine.close()
    print(len(judged), "judged", flush=True)

store.PART = 64
while os.read(0, 1):
    child = os.fork()
    if not child:
        annotate()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, "ended", flush=True)
"""

Identity = tuple[str, str, str, tuple[str, ...]]


def questions(numbers: Sequence[int]) -> list[Question]:
    """Questions that share some passages."""
    return [
        Question(f"q{n}", f"what is thing {n}", {f"d{d}": f"Passage {d} about thing {d}." for d in range(n, n + 4)})
        for n in numbers
    ]


def answer(messages: Messages) -> str:
    last = messages[-1]["content"]
    if "My selection" not in last:
        return f"It is a thing of {len(last)} letters."
    return "My selection:[[2]]" if "Reference answer:" in last else "My selection:[[1],[3]]"


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with serve() as serving:
        serving.answer = answer
        yield serving


class Command:
    """Annotates questions with UtilSel, in a process of its own each time. What it imports is imported once."""

    def __init__(self, folder: Path, server: LLMServer, numbers: Sequence[int]) -> None:
        names = {"collection": COLLECTION, "model": MODEL, "window": WINDOW, "questions": inspect.getsource(questions)}
        program = PROGRAM.format(folder=str(folder), url=server.url, numbers=list(numbers), **names)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", program], **pipes)
        self.pid = 0

    def begin(self) -> None:
        """Start a process, which opens the store and waits for `go`."""
        self._send("b")
        self.pid = self.told("begun")

    def go(self) -> None:
        self._send("g")

    def told(self, what: str) -> int:
        """The number in the next line that ends with `what`."""
        for line in self.process.stdout:
            number, said = line.split()
            if said == what:
                return int(number)
        raise AssertionError(f"the program ended before it was {what}")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.told("ended") == -signal.SIGKILL

    def judged(self) -> int:
        number = self.told("judged")
        assert self.told("ended") == 0
        return number

    def _send(self, letter: str) -> None:
        self.process.stdin.write(letter)
        self.process.stdin.flush()


@pytest.fixture
def command(tmp_path: Path, server: LLMServer) -> Iterator[Callable[[Sequence[int]], Command]]:
    made: list[Command] = []

    def make(numbers: Sequence[int]) -> Command:
        made.append(Command(tmp_path, server, numbers))
        return made[-1]

    yield make
    for each in made:
        each.process.stdin.close()
        each.process.wait(timeout=60)


def calls(server: LLMServer) -> int:
    return sum(path.endswith("completions") for path, _, _ in server.seen)


def raw(folder: Path) -> Counter[Identity]:
    """Rows of all parts and whole lines of all journals, as often as they are there. The store's code reads none of them."""
    rows = [row for part in folder.glob("*.parquet") for row in pq.read_table(part, columns=COLUMNS).to_pylist()]
    for journal in folder.glob("*.jsonl"):
        rows += [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert {row["outcome"] for row in rows} <= {Outcome.OK}
    return Counter((row["key"], row["collection"], row["query_id"], tuple(row["doc_ids"])) for row in rows)


def visible(folder: Path) -> list[Identity]:
    return [r.identity() for r in Store(folder).records(COLLECTION, STAGES, MODEL)]


def test_twenty_kills_lose_double_and_repeat_nothing(
    tmp_path: Path, server: LLMServer, command: Callable[[Sequence[int]], Command]
) -> None:
    rng, annotate = random.Random(7), command(range(500))
    one_run = 500 * len(STAGES)
    finished: set[Identity] = set()
    for kills, moment in enumerate(sorted(rng.sample(range(1, one_run - 40), KILLS)), start=1):
        annotate.begin()  # this one is killed as it opens the store
        time.sleep(rng.uniform(0, 0.02))
        annotate.kill()
        annotate.begin()
        annotate.go()
        annotate.told("opened")
        late = time.monotonic() + 60
        while calls(server) < moment:
            assert time.monotonic() < late, "the process asks no more"
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        seen = calls(server)
        annotate.kill()
        rows = raw(tmp_path)
        assert finished <= rows.keys()
        assert len(rows) >= seen - WINDOW * kills
        finished |= rows.keys()
    for _ in range(2):
        before = calls(server)
        annotate.begin()
        annotate.go()
        assert annotate.judged() == 500
        rows = raw(tmp_path)
        assert finished <= rows.keys()
        assert len(rows) == one_run and set(rows.values()) == {1}
        assert Counter(visible(tmp_path)) == rows
        assert one_run <= calls(server) <= one_run + KILLS * WINDOW
    assert calls(server) == before
    assert {p.suffix for p in tmp_path.iterdir()} == {".parquet"}


def test_two_processes_on_one_store_lose_nothing_and_show_nothing_twice(
    tmp_path: Path, server: LLMServer, command: Callable[[Sequence[int]], Command]
) -> None:
    forth, back = command(range(100)), command(range(99, -1, -1))
    for each in (forth, back):
        each.begin()
        each.told("opened")  # neither opens what the other has kept
    for each in (forth, back):
        each.go()
    assert [forth.judged(), back.judged()] == [100, 100]
    rows = raw(tmp_path)
    assert rows.total() == calls(server) > 100 * len(STAGES)  # each kept what it asked, and they did meet
    seen = visible(tmp_path)
    assert set(seen) == rows.keys() and len(seen) == len(rows) == 100 * len(STAGES)
    before = calls(server)
    forth.begin()
    forth.go()
    assert forth.judged() == 100
    assert calls(server) == before


def run(folder: Path, server: LLMServer, annotator: Annotator, model: str) -> dict[str, list[Judgement]]:
    store, engine = Store(folder), OpenAI("toy", [server.url], window=WINDOW)
    try:
        return dict(Chains(annotator, store, COLLECTION, [LLM(model, engine)]).run(questions(range(6))))
    finally:
        store.close()
        engine.close()


def test_another_threshold_asks_nothing_and_another_model_asks_all(tmp_path: Path, server: LLMServer) -> None:
    def kept(model: str) -> list[Record]:
        return list(Store(tmp_path).records(COLLECTION, ["likelihood_question"], model))

    none, all_of_it = (
        Likelihood(template="likelihood_question", rule="at_least", threshold=threshold) for threshold in (0.5, -1e6)
    )
    first = run(tmp_path, server, none, MODEL)
    asked, old = calls(server), kept(MODEL)
    assert (len(first), asked, len(old)) == (6, 24, 24)
    second = run(tmp_path, server, all_of_it, MODEL)
    assert calls(server) == asked
    assert [[sum(j.label for j in of) for of in judged.values()] for judged in (first, second)] == [[0] * 6, [4] * 6]
    run(tmp_path, server, none, "toy@2")
    assert calls(server) == 2 * asked
    assert kept(MODEL) == old and len(kept("toy@2")) == 24
