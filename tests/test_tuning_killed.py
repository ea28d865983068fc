"""A tuning whose process is killed while its rollouts are drawn asks for no reply again that it had."""

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from commands import start_command
from conftest import ok
from llm_server import LLMServer
from tuning_runs import FAST, tiny_chat


def test_the_same_command_asks_for_the_missing_replies_alone(
    command: Callable, server: LLMServer, folder: Path, tmp_path: Path
) -> None:
    """Nine replies, one at a time, of which the server keeps all back from the fifth on."""
    numbers = itertools.count()
    server.answer = lambda messages: f"heart {'and ' * next(numbers)}"  # each with another F1

    def hold(number: int, body: object) -> None:
        server.crowd = 99 if number >= 4 else 0

    server.fault = hold
    given = ["dataset=local", f"dataset.path={folder}", f"base={tiny_chat(tmp_path / 'model')}", "tuner=best_of", *FAST]
    given += ["tuner.samples=3", "rag.top_k=1", "llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=scripted"]
    given += ["llm.window=1", "hydra.run.dir=run"]

    def kept() -> int:
        return sum(journal.read_bytes().count(b"\n") for journal in (tmp_path / "annotations").glob("*.jsonl"))

    process = start_command("uar.tune", given, tmp_path, [Path(os.devnull)] * 2)
    while process.is_alive() and (len(server.seen) < 5 or kept() < 4):  # a call goes out while the last reply is being kept
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "run" / "rollouts.parquet").exists() and not (tmp_path / "run" / "model").exists()
    answered, server.fault, server.crowd = len(server.seen) - server.flying, lambda number, body: None, 0
    asked = len(server.seen)
    said = ok(command("uar.tune", *given))
    assert answered == 4 and len(server.seen) - asked == 9 - answered
    assert "5 calls of scripted" in said and "4 from the store" in said
    assert len(pq.read_table(tmp_path / "run" / "rollouts.parquet")) == 9 and (tmp_path / "run" / "model").is_dir()
