"""The CSV and TensorBoard loggers of a run, and what all loggers are told of a stage."""

import csv
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uar.errors import UserError
from uar.tracking.stages import StageStart


class RunCSV(CSVLogger):
    """`metrics.csv` of one job. A job that is resumed goes on with the rows of its earlier parts."""

    def __init__(self, folder: str, resume: bool = False) -> None:
        super().__init__(save_dir=folder, name="", version="csv")
        path = Path(self.log_dir) / "metrics.csv"
        self._aside = path.with_name("earlier.csv")  # until the rows that are kept are written anew
        self._before: list[dict[str, Any]] = []
        if not resume:
            self._aside.unlink(missing_ok=True)
        elif rank_zero_only.rank == 0:
            if path.is_file() and not self._aside.is_file():
                os.replace(path, self._aside)
            if self._aside.is_file():
                with self._aside.open(newline="") as file:
                    self._before = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]

    def begin(self, stage: StageStart) -> None:
        """Keep of the earlier rows those before the step at which the stage goes on, once."""
        kept = [r for r in self._before if "stage" in r and (r["stage"], r["step"]) < (stage.number, stage.step)]
        self._before = []
        for row in kept:
            at = int(row.pop("step"))
            self.experiment.log_metrics(row, at)
        self.save()
        self._aside.unlink(missing_ok=True)


class RunTensorBoard(TensorBoardLogger):
    """Event files of one job. Steps go on from stage to stage; where a resumed job logs a step again, the earlier values from
    that step on are no longer shown."""

    def __init__(self, folder: str, resume: bool = False) -> None:
        super().__init__(save_dir=folder, name="", version="tensorboard", default_hp_metric=False)
        self._resumed, self._offset, self._last = resume, 0, 0
        if not resume and rank_zero_only.rank == 0:
            shutil.rmtree(self.log_dir, ignore_errors=True)

    def begin(self, stage: StageStart) -> None:
        self._offset = self._last = stage.steps_before
        if self._resumed:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog

            goes_on = Event(step=stage.steps_before + stage.step, session_log=SessionLog(status=SessionLog.START))
            self.experiment.file_writer.add_event(goes_on)
        self._resumed = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is not None:
            self._last = self._offset + step
        super().log_metrics(dict(metrics), self._last)


def csv_logger(folder: str, resume: bool = False) -> RunCSV:
    """`metrics.csv` in `folder`/csv."""
    return RunCSV(folder, resume)


def tensorboard_logger(folder: str, resume: bool = False) -> RunTensorBoard:
    """Event files in `folder`/tensorboard."""
    if find_spec("tensorboard") is None:
        raise UserError("logger=tensorboard: tensorboard is not installed; pip install 'uar[tensorboard]'")
    return RunTensorBoard(folder, resume)


def begin_stage(loggers: Sequence[Any], stage: StageStart) -> None:
    """Tell the loggers that the steps that follow are of `stage`; what a resumed job had logged later is logged again."""
    for logger in loggers:
        if hasattr(logger, "begin") and rank_zero_only.rank == 0:
            logger.begin(stage)
