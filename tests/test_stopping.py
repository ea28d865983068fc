"""SIGTERM and Ctrl-C: a status that is not 0, what was finished is kept, nothing that was started goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SMALL
from llm_server import LLMServer, Messages, gold_answers
from wandb_files import offline_run

from uar.collections import open_collection

SLEEPER = """
import multiprocessing, sys, time
from pathlib import Path
from uar.launch.entry import entry

def child():
    while True:
        Path("child").touch()
        time.sleep(0.1)

def task(cfg, folder):
    multiprocessing.get_context("fork").Process(target=child).start()
    try:
        Path("started").touch()
        time.sleep(600)
    finally:
        Path("unwound").touch()

sys.argv = ["uar", "texts=a", "out=b"]
entry("corpus", task)
"""


IN_PLACE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.Handlers[sys.argv[1]])
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def start(words: list[str], folder: Path, sigint: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """`sigint`: as the process finds it. A program sets it and not `preexec_fn`, which runs in a fork of this process, whose
    threads may hold locks."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", IN_PLACE, sigint.name, *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until `there` says so; the process must not end before."""
    while not there():
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.05)


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Its status and the lines of its errors."""
    _, stderr = process.communicate(timeout=300)
    assert "Traceback" not in stderr, stderr
    return process.returncode, [line for line in stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("in_background", [False, True])
def test_a_command_that_is_stopped_is_unwound(tmp_path: Path, number: signal.Signals, in_background: bool):
    """In the background of a shell script Ctrl-C is ignored, and SIGTERM is not."""
    process = start(["-c", SLEEPER], tmp_path, signal.SIG_IGN if in_background else signal.SIG_DFL)
    wait_for(lambda: (tmp_path / "started").exists() and (tmp_path / "child").exists(), process)
    process.send_signal(number)
    if in_background and number == signal.SIGINT:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        number = signal.SIGTERM
        process.send_signal(number)
    assert ended(process) == (128 + number, [f"error: stopped by {number.name}; what was finished is kept"])
    assert (tmp_path / "unwound").exists()
    (tmp_path / "child").unlink()
    time.sleep(0.5)
    assert not (tmp_path / "child").exists(), "the child goes on"


LONG = ["rag=off", "training.epochs=500", "training.checkpoint_every=2", "label_source=human", *SMALL]
LAST = Path("checkpoints", "0-human", "last.ckpt")


def processes_in(folder: Path) -> list[int]:
    """Ids of the processes whose working folder is this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(place / "cwd")) == folder.resolve():
                found.append(int(place.name))
        except OSError:  # ended, or another user's
            continue
    return found


def test_a_training_that_is_stopped_keeps_its_checkpoint_and_its_tracked_run_has_failed(tmp_path: Path, tiny: list[str]):
    process = start(
        [str(ROOT / "train.py"), *LONG, *tiny, "name=run", "logger=default", "logger.wandb.mode=offline"], tmp_path
    )
    run = tmp_path / "outputs" / "run"
    wait_for((run / LAST).exists, process)
    process.terminate()
    assert ended(process) == (143, ["error: stopped by SIGTERM; what was finished is kept"])
    assert (run / LAST).exists() and not (run / "metrics.json").exists() and (run / "csv" / "metrics.csv").exists()
    assert offline_run(run).exit_code == 1
    assert not processes_in(tmp_path)


@pytest.fixture
def stopped(tmp_path: Path, server: LLMServer) -> Callable[..., dict]:
    """Annotate and press Ctrl-C while the server keeps its 13th answer back; the ledger that is left."""

    def run(answer: Callable[[Messages], str], *options: str) -> dict:
        released = threading.Event()

        def slow(messages: Messages) -> str:
            if len(server.seen) > 12:
                released.wait(60)
            return answer(messages)

        server.answer = slow
        model = ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=gold", "llm.window=4"]
        rest = ["candidates.depth=4", "logger=none", "hydra.run.dir=run"]
        process = start([str(ROOT / "annotate.py"), *options, *model, *rest], tmp_path)
        wait_for(lambda: len(server.seen) > 12, process)
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        released.set()
        assert ended(process) == (130, ["error: stopped by SIGINT; what was finished is kept"])
        return json.loads((tmp_path / "run" / "ledger.json").read_text())

    return run


def test_an_annotation_that_is_stopped_keeps_its_labels_and_its_ledger(tmp_path: Path, stopped: Callable[..., dict]):
    ledger = stopped(gold_answers(open_collection("mini:train")), "annotator=relsel", "limit=24")
    judged = set(pq.read_table(tmp_path / "run" / "labels.parquet")["query_id"].to_pylist())
    assert 0 < ledger["queries"] == len(judged) < 24


def test_a_writing_of_questions_that_is_stopped_keeps_its_ledger(stopped: Callable[..., dict]):
    ledger = stopped(lambda _: "What is told of here?", "annotator=relsel", "questions=generate", "questions.passages=24")
    assert 0 < ledger["calls"] < 24 and ledger["queries"] == 0 and ledger["stages"]["write_questions"]["calls"] > 0


def test_a_sweep_on_two_devices_that_is_stopped_leaves_no_process(tmp_path: Path, tiny: list[str]):
    """Only the process of the sweep gets the signal."""
    words = ["-m", "uar.train", "-m", *LONG, *tiny, "trainer=ddp_cpu", "seed=0,1", "logger=none", "hydra.sweep.dir=sweep"]
    process = start(words, tmp_path)
    wait_for(lambda: list((tmp_path / "sweep").glob(f"*/{LAST}")), process)
    process.terminate()
    status, errors = ended(process)
    assert status == 143 and errors[-1] == "error: stopped by SIGTERM; what was finished is kept"
    assert not processes_in(tmp_path) and len(list((tmp_path / "sweep").glob("*/checkpoints"))) == 1
