"""Fits a retriever through the stages of a curriculum, each with its own optimizer, schedule and checkpoints."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from uar.files import read_json, write_json
from uar.labels import Stage
from uar.retrievers.bi_encoder import BiEncoder
from uar.training.batches import BatchStream
from uar.training.dev_score import NAME, DevScore
from uar.training.module import Loss, RetrieverModule

log = logging.getLogger(__name__)


def fit(
    retriever: BiEncoder,
    stages: Sequence[Stage],
    loss: Loss,
    optimizer: partial,
    warmup: float,
    streams: Callable[[Stage, int, int], BatchStream],
    dev: DevScore | None,
    trainer: Callable[..., L.Trainer],
    folder: Path,
    resume: bool,
    checkpoint_every: int,
) -> dict[str, Any]:
    """Train in place and return, a stage, its steps, seconds and best dev score.

    `streams(stage, rank, world)` gives the batches; `trainer(**more)` a Lightning Trainer. After a stage the weights of its
    best epoch by dev nDCG@10 are loaded (its last where there is no dev split). With `resume`, finished stages are
    loaded and a broken one goes on from its last checkpoint.
    """
    told: dict[str, Any] = {}
    for number, stage in enumerate(stages):
        place = folder / f"{number}-{stage.name}"
        module = RetrieverModule(retriever, loss, optimizer, warmup, stage.name)
        module.train()  # models are loaded in eval mode, and Lightning leaves them as they are
        done = place / "done.json"
        if resume and done.is_file():
            _load(module, place)
            told[stage.name] = read_json(done)
            log.info("Stage %s was finished before and is loaded", stage.name)
            continue
        last = place / "last.ckpt"
        best = ModelCheckpoint(
            place,
            "best",
            monitor=NAME if dev else None,
            mode="max",
            save_weights_only=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        latest = ModelCheckpoint(
            place, "last", every_n_train_steps=checkpoint_every, save_top_k=1, enable_version_counter=False
        )
        position = StreamPosition()
        lightning = trainer(max_epochs=stage.epochs, callbacks=[position, *([dev] if dev else []), best, latest])
        log.info("Stage %s: %d queries, %d epochs", stage.name, len(stage.examples), stage.epochs)
        start = time.perf_counter()
        position.stream = streams(stage, lightning.global_rank, lightning.world_size)
        lightning.fit(module, position.stream, ckpt_path=last if resume and last.is_file() else None, weights_only=False)
        seconds = time.perf_counter() - start
        if lightning.interrupted:
            raise KeyboardInterrupt
        lightning.save_checkpoint(last)
        _load(module, place)
        told[stage.name] = {
            "queries": len(stage.examples),
            "steps": lightning.global_step,
            "seconds": round(seconds, 2),
            "best dev nDCG@10": float(best.best_model_score) if dev and best.best_model_score is not None else None,
        }
        if lightning.is_global_zero:
            write_json(done, told[stage.name])
    return told


class StreamPosition(L.Callback):
    """Keeps the position of the batch stream in the checkpoint. Lightning saves a loader's own state but, resumed within an
    epoch, does not restore it."""

    stream: BatchStream

    def state_dict(self) -> dict[str, Any]:
        return self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stream.load_state_dict(state_dict)


def _load(module: RetrieverModule, place: Path) -> None:
    """The weights of the stage's best epoch."""
    state = torch.load(place / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
