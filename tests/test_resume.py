"""A killed run goes on exactly, and only as what it was."""

import csv
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import start_command
from conftest import ok
from safetensors.torch import load_file

from uar.storage.files import write_json
from uar.training import callbacks

Command = Callable[..., subprocess.CompletedProcess[str]]
OPTIONS = [
    "label_source=mixed", "rag=off", "logger=csv", "retriever.dropout=0.1", "training.checkpoint_every=3", "dataset.test=[]",
    "retriever.layers=1",
    "training.epochs=2", "limit=24", "training.batch_size=4", "training.dev_queries=6", "human_frac=0.5",
    "trainer.precision=fp32",  # the dtype whose sums the tolerance below is of
]  # fmt: skip
STEPS = {0: 12, 1: 6}  # of each stage


def logged(folder: Path) -> dict[tuple[int, int], tuple]:
    """(stage, step) -> the losses and dev scores that were logged there."""
    found: dict[tuple[int, int], dict] = {}
    path = folder / "csv" / "metrics.csv"
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("stage"):
                    values = {k: v for k, v in row.items() if v and k not in ("epoch", "step", "stage")}
                    found.setdefault((int(float(row["stage"])), int(float(row["step"]))), {}).update(values)
    return {at: tuple(sorted(values.items())) for at, values in found.items()}


def kill_at(folder: Path, stage: int, step: int, *more: str) -> None:
    """Run the command and kill it once `step` of `stage` was logged."""
    process = start_command("train", [*OPTIONS, *more, f"hydra.run.dir={folder}"], folder.parent, [Path(os.devnull)] * 2)
    while process.is_alive() and not any(at >= (stage, step) for at in logged(folder)):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_a_run_killed_in_each_stage_goes_on_as_if_it_had_not_been(command: Command, fails: Callable, tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ok(command("train", *OPTIONS, f"hydra.run.dir={whole}"))
    assert {stage: sum(at[0] == stage for at in logged(whole)) for stage in STEPS} == STEPS
    write_json(broken / "checkpoints" / "1-human" / "done.json", {})  # of an earlier run in this folder
    chance = random.Random(time.time_ns())
    places = [(stage, chance.randrange(2, STEPS[stage] - 1)) for stage in STEPS]
    for number, place in enumerate(places):
        kill_at(broken, *place, *(["resume=true"] if number else []))
        assert not (broken / "checkpoints" / f"{place[0]}-{('llm', 'human')[place[0]]}" / "done.json").exists(), places
    for change, name in (
        ("loss=contrastive", "loss"),
        ("human_frac=0.6", "labels"),
        ("training.learning_rate=1e-3", "schedule"),
    ):
        told = fails(
            "train",
            *[o for o in OPTIONS if o.split("=")[0] != change.split("=")[0]],
            change,
            "resume=true",
            f"hydra.run.dir={broken}",
        )
        assert f"another {name} (" in told and " then, " in told
    told = ok(command("train", *OPTIONS, "resume=true", f"hydra.run.dir={broken}"))
    assert "Stage llm was finished before" in told
    assert logged(broken) == logged(whole), places
    expected, found = weights(whole), weights(broken)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{places} {n}: {m}")


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, weights = tmp_path / "last.ckpt", torch.ones(3)
    writer = callbacks.WholeCheckpoints()
    go = threading.Event()
    write = callbacks._write
    monkeypatch.setattr(callbacks, "_write", lambda *what: go.wait(60) and write(*what))
    writer.save_checkpoint({"step": 1, "weights": weights}, path)
    assert not path.exists()  # training goes on
    weights += 1
    go.set()
    assert writer.load_checkpoint(path)["weights"].tolist() == [1, 1, 1]

    def breaks(self: Path, data: bytes) -> int:
        self.open("wb").write(b"half of a")
        raise OSError("no more space")

    monkeypatch.setattr(Path, "write_bytes", breaks)
    for then in (writer.wait, partial(writer.save_checkpoint, {}, path), writer.teardown):
        writer.save_checkpoint({"step": 2}, path)
        with pytest.raises(OSError, match="no more space"):
            then()
    assert torch.load(path)["step"] == 1 and list(tmp_path.iterdir()) == [path]
