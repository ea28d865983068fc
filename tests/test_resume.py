"""A killed run goes on exactly; two processes train as one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import ROOT, SMALL, metrics, ok

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(command: Command, tmp_path: Path):
    options = [
        "label_source=mixed", "rag=off", "logger=none", "retriever.dropout=0", "training.checkpoint_every=1",
        "dataset.test=[]",
        "training.epochs=2", "limit=24", "training.batch_size=4", "training.dev_queries=6",
    ]  # fmt: skip
    ok(command("train", *options, f"hydra.run.dir={tmp_path / 'whole'}"))
    broken = [sys.executable, str(ROOT / "train.py"), *options, f"hydra.run.dir={tmp_path / 'broken'}"]
    process = subprocess.Popen(broken, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    last = tmp_path / "broken" / "checkpoints" / "0-llm" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.exists() and not (last.parent / "done.json").exists()
    ok(command("train", *options, "resume=true", f"hydra.run.dir={tmp_path / 'broken'}"))
    whole, resumed = (
        torch.load(tmp_path / n / "checkpoints" / "1-human" / "best.ckpt", weights_only=True)["state_dict"]
        for n in ("whole", "broken")
    )
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-5, atol=1e-6)


def test_two_processes_train_together(command: Command, tmp_path: Path):
    quick = [*SMALL, "rag=off", "logger=csv", "label_source=human", "training.batch_size=2"]
    ok(command("train", *quick, "trainer=cpu", "trainer.devices=2", "hydra.run.dir=two"))
    found = metrics(tmp_path / "two")
    assert found["train"]["human"]["steps"] == 6 and found["retrieval"]["mini.test"]["nDCG@10"] > 0.3
    assert (tmp_path / "two" / "model" / "model.safetensors").is_file()
