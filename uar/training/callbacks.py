"""What makes a killed run go on exactly, beside Lightning's own checkpoints."""

import io
import logging
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from uar.storage.files import whole_file
from uar.storage.ordering import rank_of
from uar.training.batches import BatchStream

log = logging.getLogger(__name__)


class StreamPosition(L.Callback):
    """Keeps the position of the batch stream in the checkpoint. Lightning saves a loader's own state but, resumed within an
    epoch, does not restore it. What loggers hold back is written at the same time, so that no logged step is lost."""

    stream: BatchStream

    def state_dict(self) -> dict[str, Any]:
        return self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stream.load_state_dict(state_dict)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            logger.save()


class Stopwatch(L.Callback):
    """Seconds of training, those before a kill up to the checkpoint that was gone on from among them."""

    def __init__(self) -> None:
        self._before, self._start = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]


class StepSeed(L.Callback):
    """Random numbers (dropout) are a function of (seed, stage, step, process), whether the run was resumed or not; where
    gradients of several batches make a step, of the batch as well."""

    def __init__(self, seed: int, stage: str) -> None:
        self._seed, self._stage = seed, stage

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        part = [str(batch_idx)] if trainer.accumulate_grad_batches > 1 else []
        key = rank_of(self._seed, "step", self._stage, str(trainer.global_step), str(trainer.global_rank), *part)
        torch.manual_seed(int.from_bytes(key[:8], "big") >> 1)


class StageMark(L.Callback):
    """The stage's number beside every logged value: steps begin anew in each stage."""

    def __init__(self, number: int) -> None:
        self._number = number

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        pl_module.log("stage", float(self._number))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("stage", float(self._number))


class CommandEndsAtSigterm(L.Callback):
    """SIGTERM goes on to do what it did before. Lightning would end a training with status 0, as if it was finished, and on
    several devices wait within its handler for processes that are gone."""

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # others have no say
            signal.signal(signal.SIGTERM, self._before)


class Best(ModelCheckpoint):
    """Knows its best score again where the run folder was moved between two parts of a run."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        known = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": known, "dirpath": self.dirpath})


class Latest(Checkpoint):
    """Keeps the newest state in `path`: every so many steps, and at the end of an epoch when it was scored and the best state
    was kept. At the last batch of an epoch nothing is kept, since a run resumed there would not score it; nor between batches
    whose gradients make one step, which a checkpoint does not hold."""

    def __init__(self, path: Path, every: int) -> None:
        self._path, self._every = path, every

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step % self._every == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self._path)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self._path)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The best state, which every process reads next, is there too."""
        if isinstance(writer := trainer.strategy.checkpoint_io, WholeCheckpoints):
            writer.wait()
        trainer.strategy.barrier()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """What ended the training is raised; a checkpoint that was not written either is logged."""
        if isinstance(writer := trainer.strategy.checkpoint_io, WholeCheckpoints):
            try:
                writer.wait()
            except Exception as error:
                log.warning("The newest checkpoint was not written: %s", error)


class WholeCheckpoints(TorchCheckpointIO):
    """A checkpoint is there whole, or not at all. A thread writes it while training goes on, with what it held when it was
    saved. What that thread raised is raised by the next call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        self.wait()
        held = io.BytesIO()
        torch.save(checkpoint, held)
        self._writing = self._thread.submit(_write, Path(path), held)

    def wait(self) -> None:
        """Until what was saved is there."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load_checkpoint(self, path: Any, *where: Any, **how: Any) -> dict[str, Any]:
        self.wait()
        return super().load_checkpoint(path, *where, **how)

    def remove_checkpoint(self, path: Any) -> None:
        self.wait()
        super().remove_checkpoint(path)

    def teardown(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def _write(path: Path, held: io.BytesIO) -> None:
    with whole_file(path) as beside:
        beside.write_bytes(held.getbuffer())
