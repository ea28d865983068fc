"""A W&B run whose job was resumed, or whose server is away."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import FORKS
from wandb_files import read_run
from wandb_server import serve_wandb

from uar.tracking.logged_rows import LoggedRows
from uar.tracking.stages import StageStart
from uar.tracking.wandb_run import wandb_logger


def log_steps(folder: Path, resume: bool, steps: list[int]) -> None:
    """A part of a job that logs a loss every step and a score every second one; the first part is killed."""
    logger = wandb_logger(str(folder), "p", mode="offline", resume=resume)
    assert logger is not None
    logger.begin(StageStart(0, "llm", steps[0], 5))
    for step in steps:
        logger.log_metrics({"llm/loss": 100.0 + step}, step)
        if step % 2 == 0:
            logger.log_metrics({"llm/dev": 200.0 + step}, step)
    if not resume:
        os.kill(os.getpid(), signal.SIGKILL)
    logger.log_metrics({"retrieval/nDCG@10": 0.5})
    logger.end(failed=False)


def test_the_parts_of_a_resumed_run_sync_every_step_once(tmp_path: Path):
    for resume, steps in ((False, [1, 2, 3, 4]), (True, [3, 4, 5, 6])):
        part = FORKS.Process(target=log_steps, args=(tmp_path, resume, steps))
        part.start()
        part.join()
        assert part.exitcode == (0 if resume else -signal.SIGKILL)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    first, second = (read_run(folder) for folder in folders)
    assert first.id == second.id
    with serve_wandb() as server:
        settings = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "WANDB_MODE": "online"}
        for folder in folders:
            command = [Path(sys.executable).parent / "wandb", "sync", "--yes", folder]
            subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    assert [row["llm/loss"] for row in server.history if "llm/loss" in row] == [101, 102, 103, 104, 105, 106]
    assert [row["llm/dev"] for row in server.history if "llm/dev" in row] == [202, 204, 206]
    assert [row["trainer/global_step"] for row in server.history if "llm/loss" in row] == [6, 7, 8, 9, 10, 11]
    assert [row["_step"] for row in server.history] == list(range(10))


def test_a_job_that_is_not_resumed_logs_anew(tmp_path: Path):
    path = tmp_path / "rows.json"
    rows = LoggedRows(path, resume=False)
    rows.add({"loss": 1.0}, 4)
    rows.add({"score": 1.0}, None)
    assert json.loads(path.read_text()) == {"rows": 2, "steps": {"loss": 4}}
    again, anew = LoggedRows(path, resume=True), LoggedRows(path, resume=False)
    assert (again.rows, again.new({"loss": 1.0, "dev": 2.0}, 4)) == (2, {"dev": 2.0})
    assert (anew.rows, anew.new({"loss": 1.0}, 4)) == (0, {"loss": 1.0})


@pytest.mark.parametrize("proxy", [False, True])
def test_a_key_without_a_network_keeps_the_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, proxy: bool
):
    for name in ("WANDB_MODE", "no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with serve_wandb() as server:
        away, there = "http://127.0.0.1:9", server.url
        monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid" if proxy else away)
        if proxy:
            monkeypatch.setenv("http_proxy", away)
        with caplog.at_level(logging.WARNING):
            logger = wandb_logger(str(tmp_path / "away"), "p")
        assert logger is not None and logger.experiment.settings.mode == "offline"
        logger.end(failed=False)
        assert "cannot be reached" in caplog.text and "the run is kept offline" in caplog.text
        monkeypatch.setenv("http_proxy" if proxy else "WANDB_BASE_URL", there)
        assert wandb_logger(str(tmp_path / "there"), "p")._wandb_init["mode"] == "online"  # type: ignore[union-attr]
