"""A resumed job goes on with the log of its earlier parts."""

import csv
from pathlib import Path

import pytest

from uar.training.loggers import csv_logger, rewind, wandb_logger


def rows(folder: Path) -> list[tuple]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return [tuple((k, float(v)) for k, v in sorted(r.items()) if v) for r in csv.DictReader(file)]


def test_rows_before_the_step_of_the_stage_are_kept_and_the_others_logged_again(tmp_path: Path):
    first = csv_logger(str(tmp_path))
    for stage, step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        first.log_metrics({"stage": float(stage), "loss": 10.0 * stage + step}, step)
    first.log_metrics({"mini.test/AP": 0.5}, 0)  # logged when training was over, and again at the end
    first.save()
    second = csv_logger(str(tmp_path), resume=True)
    rewind([second], 1, 1)
    second.log_metrics({"stage": 1.0, "loss": 99.0}, 1)
    second.save()
    assert [dict(row)["loss"] for row in rows(tmp_path)] == [0.0, 1.0, 10.0, 99.0]


def test_a_job_that_is_not_resumed_starts_a_new_log(tmp_path: Path):
    for _ in range(2):
        logger = csv_logger(str(tmp_path))
        rewind([logger], 0, 0)
        logger.log_metrics({"stage": 0.0, "loss": 1.0}, 0)
        logger.save()
    assert len(rows(tmp_path)) == 1


def test_the_same_run_of_wandb_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = [wandb_logger(str(tmp_path), "uar", "x", resume=resume).version for resume in (False, True, False)]
    assert ids[0] == ids[1] != ids[2]
