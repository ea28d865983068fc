"""A W&B run whose job was resumed, or whose server is away."""

import faulthandler
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import FORKS, ended
from wandb_files import read_run
from wandb_server import serve_wandb

from uar.tracking.stages import StageStart
from uar.tracking.wandb_parts import BLOCK, Journal
from uar.tracking.wandb_run import wandb_logger


def log_steps(folder: Path, resume: bool, steps: range) -> None:
    """A part of a job that logs a loss every step and a score every tenth one; the first part is killed. The rows are so
    long that W&B has written some of them by then."""
    faulthandler.dump_traceback_later(110)
    logger = wandb_logger(str(folder), "p", mode="offline", resume=resume)
    assert logger is not None
    logger.begin(StageStart(1, "human", steps[0], 5))
    for step in steps:
        logger.log_metrics({"human/loss": 100.0 + step, "x" * 500: 0.0}, step)
        if step % 10 == 9:
            logger.log_metrics({"dev": 200.0 + step}, step)
    if not resume:
        while not any(path.stat().st_size >= BLOCK for path in folder.glob("wandb/offline-run-*/*.wandb")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    logger.log_metrics({"retrieval/nDCG@10": 0.5})
    logger.end(failed=False)


@pytest.mark.parametrize("goes_on_at", [10, 35])
def test_the_parts_of_a_resumed_run_sync_every_step_once(tmp_path: Path, goes_on_at: int):
    """W&B has written some 25 steps of the first part: it goes on from before them, or from after them."""
    for resume, steps in ((False, range(40)), (True, range(goes_on_at, 50))):
        part = FORKS.Process(target=log_steps, args=(tmp_path, resume, steps))
        part.start()
        assert ended(part) == (0 if resume else -signal.SIGKILL)
        for path in () if resume else tmp_path.glob("wandb/offline-run-*/*.wandb"):
            os.truncate(path, BLOCK)  # it may have been quick, and have written more than its first block
    first, second = (read_run(folder) for folder in sorted((tmp_path / "wandb").glob("offline-run-*")))
    assert first.id == second.id and 10 < len(first.history) < 35
    with serve_wandb() as server:
        settings = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "WANDB_MODE": "online"}
        for part in (first, second):
            command = [Path(sys.executable).parent / "wandb", "sync", "--yes", part.folder]
            subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    rows = [row for row in server.history if "human/loss" in row]
    assert [row["human/loss"] for row in rows] == [100 + step for step in range(50)]
    assert [row["trainer/global_step"] for row in rows] == [row["_step"] for row in rows] == list(range(5, 55))
    assert [row["dev"] for row in server.history if "dev" in row] == [209, 219, 229, 239, 249]
    assert [row["retrieval/nDCG@10"] for row in server.history if "retrieval/nDCG@10" in row] == [0.5]
    assert not (tmp_path / "wandb.rows.jsonl").exists()


def test_rows_that_were_cut_are_left_out_and_a_new_job_has_none(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    journal = Journal(path, resume=False)
    for step in (1, 2, 3):
        journal.add({"loss": step}, step)
    journal.add({"dev": 5.0}, 2)
    with path.open("a") as file:
        file.write('{"step": 4, "row": {"lo')
    assert Journal(path, resume=True).rows(2, 9) == [(2, {"loss": 2, "dev": 5.0}), (3, {"loss": 3})]
    assert Journal(path, resume=False).rows(0, 9) == []


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
