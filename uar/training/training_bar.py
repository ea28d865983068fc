"""How far the training of a stage is: steps, time left, loss, best dev score so far."""

from contextlib import ExitStack
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar

from uar.launch.bars import Bar, bar
from uar.training.dev_score import NAME
from uar.training.module import RetrieverModule, is_logged


class TrainingBar(ProgressBar):
    """In place of Lightning's own, whose lines a log would be full of."""

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        self._shown: Bar | None = None

    def disable(self) -> None:
        """Asked of by Lightning on all processes but the first, which `bar` knows by itself."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        stage = pl_module.stage if isinstance(pl_module, RetrieverModule) else ""
        total = int(steps) if 0 < steps < float("inf") else None
        self._shown = self._open.enter_context(bar(f"train {stage}".strip(), total, "steps"))
        self._shown.at(trainer.global_step)
        self._shown.time_from_here()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._shown:
            self._shown.at(trainer.global_step, _told(trainer, pl_module) if is_logged(trainer) else None)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._open.close()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._open.close()


def _told(trainer: L.Trainer, module: L.LightningModule) -> str:
    """The loss and the dev score. Lightning's own way of telling a bar would wait for the GPU at each step."""
    names = ([module.loss_name] if isinstance(module, RetrieverModule) else []) + [NAME]
    logged = trainer.callback_metrics
    return ", ".join(f"{name} {float(logged[name]):.3f}" for name in names if name in logged)
