"""A resumed job goes on with the log of its earlier parts; CSV, TensorBoard and W&B are told the same."""

import csv
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import metrics, ok
from hydra.core.hydra_config import HydraConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import offline_run, read_run

from uar.errors import UserError
from uar.launch.entry import composed
from uar.tracking.job import _row, flat
from uar.tracking.loggers import begin_stage, csv_logger, tensorboard_logger
from uar.tracking.stages import StageStart
from uar.tracking.typed import typed
from uar.tracking.wandb_run import wandb_logger
from uar.training import processes
from uar.training.processes import own_processes

STEPS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (stage, step)


def rows(folder: Path) -> list[tuple]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return [tuple((k, float(v)) for k, v in sorted(r.items()) if v) for r in csv.DictReader(file)]


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) as TensorBoard shows them."""
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(point.step, pytest.approx(point.value)) for point in found.Scalars(name)]


def test_a_job_with_processes_of_its_own_is_known_by_what_its_sweep_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its processes have the composed config, and no options on their command line."""
    monkeypatch.setattr(
        processes, "_wait", lambda _, environment: [monkeypatch.setenv(*given) for given in environment.items()] and 0
    )
    cfg = composed("train", "trainer.devices=2", "loss=joint", "variants=rules", "seed=3", "hydra.mode=MULTIRUN")
    assert own_processes(cfg, tmp_path / "job")
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    given = typed()
    assert given is not None and given.config_name == "train" and "variants=rules" in given.overrides
    assert _row() == "loss=joint,trainer.devices=2,variants=rules"


def test_rows_before_the_step_of_the_stage_are_kept_and_the_others_logged_again(tmp_path: Path):
    first = csv_logger(str(tmp_path))
    for stage, step in STEPS:
        first.log_metrics({"stage": float(stage), "loss": 10.0 * stage + step}, step)
    first.log_metrics({"mini.test/AP": 0.5}, 0)  # logged when training was over, and again at the end
    first.save()
    csv_logger(str(tmp_path), resume=True).log_hyperparams({"killed": "before its stage begins"})
    second = csv_logger(str(tmp_path), resume=True)
    begin_stage([second], StageStart(1, "human", 1, 2))
    assert not (tmp_path / "csv" / "earlier.csv").exists()
    second.log_metrics({"stage": 1.0, "loss": 99.0}, 1)
    second.save()
    assert [dict(row)["loss"] for row in rows(tmp_path)] == [0.0, 1.0, 10.0, 99.0]


def test_a_job_that_is_not_resumed_starts_a_new_log(tmp_path: Path):
    for _ in range(2):
        loggers = [csv_logger(str(tmp_path)), tensorboard_logger(str(tmp_path))]
        begin_stage(loggers, StageStart(0, "llm"))
        for logger in loggers:
            logger.log_metrics({"stage": 0.0, "loss": 1.0}, 0)
            logger.finalize("success")
    assert len(rows(tmp_path)) == 1 and points(tmp_path, "loss") == [(0, 1.0)]


def test_steps_of_tensorboard_go_on_from_stage_to_stage_and_after_a_resume(tmp_path: Path):
    first = tensorboard_logger(str(tmp_path))
    for stage, step in STEPS:
        if step == 0:
            begin_stage([first], StageStart(stage, "any", 0, 2 * stage))
        first.log_metrics({"loss": 10.0 * stage + step}, step)
    first.log_metrics({"retrieval/mini.test/AP": 0.5})
    first.finalize("success")
    assert points(tmp_path, "loss") == [(0, 0.0), (1, 1.0), (2, 10.0), (3, 11.0)]
    assert points(tmp_path, "retrieval/mini.test/AP") == [(3, 0.5)]
    second = tensorboard_logger(str(tmp_path), resume=True)
    begin_stage([second], StageStart(1, "any", 1, 2))
    second.log_metrics({"loss": 99.0}, 1)
    second.finalize("success")
    assert points(tmp_path, "loss") == [(0, 0.0), (1, 1.0), (2, 10.0), (3, 99.0)]


def test_the_same_run_of_wandb_goes_on(tmp_path: Path):
    ids = [wandb_logger(str(tmp_path), "uar", mode="offline", resume=resume).version for resume in (False, True, False)]
    assert ids[0] == ids[1] != ids[2]


def test_a_resumed_job_writes_a_second_part_of_the_same_run(tmp_path: Path):
    for resume, step in ((False, 0), (True, 1)):
        logger = wandb_logger(str(tmp_path), "uar", mode="offline", resume=resume)
        begin_stage([logger], StageStart(0, "llm", step))
        logger.log_metrics({"llm/loss": 2.0 - step}, step)
        logger.end(failed=not resume)
        time.sleep(1.1)  # a part's folder is named by the second it began in
    parts = [read_run(folder) for folder in (tmp_path / "wandb").glob("offline-run-*")]
    parts.sort(key=lambda part: part.values("trainer/global_step"))
    assert len({part.id for part in parts}) == 1 and [part.exit_code for part in parts] == [1, 0]
    assert [part.values("llm/loss") for part in parts] == [[2.0], [1.0]]


def test_wandb_may_be_off_and_is_not_misspelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(str(tmp_path), "uar") is None and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"logger.wandb.mode='onlin'; allowed: auto, online, offline, disabled"):
        wandb_logger(str(tmp_path), "uar", mode="onlin")


def test_nested_names_are_paths():
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": {}, "f": None}, ".") == {"a.b": 1, "a.c.d": [2], "f": None}


def test_csv_and_tensorboard_are_told_what_wandb_is(command: Callable, tmp_path: Path):
    run = tmp_path / "run"
    ok(command("uar.evaluate", "retriever=bm25", "collections=[mini:test]", "logger=csv", f"hydra.run.dir={run}"))
    ok(command("uar.evaluate", "retriever=bm25", "collections=[mini:test]", "logger=tensorboard", f"hydra.run.dir={run}"))
    found = metrics(run)["retrieval"]["mini.test"]
    (row,) = (dict(row) for row in rows(run))
    assert {m: row[f"retrieval/mini.test/{m}"] for m in found} == pytest.approx(found)
    for measure, value in found.items():
        assert points(run, f"retrieval/mini.test/{measure}") == [(0, pytest.approx(value, rel=1e-6))]


def test_a_job_that_fails_ends_its_run_as_failed_and_keeps_no_secret(fails: Callable, tmp_path: Path):
    secret = ["+extra.api_key=hunter2", "store='http://me:hunter3@x/v1?a=1&api-key=hunter4'"]
    fails(
        "uar.evaluate", "run=x.trec", "collections=[mini:test]", "hydra.run.dir=run", *secret, WANDB_MODE="offline"
    )  # fmt: skip
    run = offline_run(tmp_path / "run")
    assert run.exit_code == 1 and run.arguments == []
    assert (run.config["extra.api_key"], run.config["store"]) == ("***", "http://***@x/v1?a=***&api-key=***")
    assert run.config["row"] == "+extra.api_key=***,collections=[mini:test],run=x.trec"
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"hunter" not in path.read_bytes(), path
