"""The check of a GPU, tried on the CPU: what it takes for done, and what it leaves behind."""

import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

HANGS = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = import_module("gpu_check")
    commands = {"right": "print('done')", "failing": "print('done'); exit(3)", "silent": "pass", "hanging": HANGS}
    steps = {name: module.Step(("-c", code), "done", run=False) for name, code in commands.items()}
    monkeypatch.setattr(module, "STEPS", module.STEPS | steps)
    return module


def ended(check: ModuleType, folder: Path, steps: str, **options: object) -> object:
    with pytest.raises(SystemExit) as error:
        check.main(steps=steps, folder=str(folder), **{"on": "cpu", **options})
    return error.value.code


def test_a_step_is_ok_where_it_says_what_it_is_there_for(
    check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert ended(check, tmp_path, "right") == 0
    assert ended(check, tmp_path, "right,failing,silent") == 1
    said = capsys.readouterr().out
    assert "on the CPU" in said and "status 3" in said and "it does not say 'done'" in said
    assert str(ended(check, tmp_path, "right,write,x")).startswith(
        "steps=right,write,x on=cpu: allowed are steps of train_step,"
    )


def test_a_step_that_takes_too_long_is_ended_with_what_it_started(check: ModuleType, tmp_path: Path):
    assert ended(check, tmp_path, "hanging", seconds=10) == 1
    stat = Path("/proc", (tmp_path / "hanging.log").read_text().strip(), "stat")
    for _ in range(100):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("what the step started goes on")


def test_a_machine_without_a_gpu_is_told(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert str(ended(check, tmp_path, "right", on="gpu")).startswith("no GPU is seen by torch")


def test_a_real_step_begins_anew(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    short = ("limit=8", "dataset.dev=null", "retriever.layers=1", "trainer.max_steps=1")
    step = check.STEPS["ddp"]
    monkeypatch.setitem(check.STEPS, "ddp", replace(step, command=(*step.command, *short)))
    (tmp_path / "ddp").mkdir()
    (tmp_path / "ddp" / "left").write_text("of an earlier try")
    assert ended(check, tmp_path, "ddp") == 0
    assert not (tmp_path / "ddp" / "left").exists() and (tmp_path / "ddp" / "model").is_dir()
