"""Fits a retriever through the stages of a curriculum, each with its own optimizer, schedule and checkpoints."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uar.errors import UserError
from uar.evaluation.metrics_file import AFTER, BEFORE, GIVEN_KEPT, given_kept
from uar.labels import Stage
from uar.losses import Loss
from uar.retrievers.trainable import Trainable
from uar.storage.files import read_json, write_json
from uar.tracking.loggers import begin_stage
from uar.tracking.stages import StageStart
from uar.training.batches import BatchStream
from uar.training.callbacks import Best, Latest, StageMark, StepSeed, Stopwatch, StreamPosition
from uar.training.dev_score import NAME, DevScore
from uar.training.further_terms import FurtherTerms
from uar.training.module import NO_TERMS, RetrieverModule
from uar.training.schedules import Schedule, linear

log = logging.getLogger(__name__)
BEST, LAST, DONE = "best.ckpt", "last.ckpt", "done.json"
DEV_QUESTIONS = "dev questions"


@dataclass(frozen=True)
class Settings:
    """What all stages have, unless one says otherwise; see conf/train.yaml."""

    loss: Loss
    optimizer: partial
    warmup: float
    seed: int
    checkpoint_every: int
    patience: int | None = None
    false_negative_margin: float | None = None
    grad_cache: bool = False
    schedule: Schedule = linear
    keep_checkpoints: bool = False
    keep_better: bool = False
    terms: FurtherTerms = NO_TERMS


@dataclass(frozen=True)
class Fitting:
    """`streams(stage, rank, world, device)` gives batches; `trainer(**more)` a Lightning Trainer; `mine(stage, number, file)`
    the stage with its negatives looked up again; `given()` the retriever as it was before training. Checkpoints of a stage go
    to its folder in `folder`: `last.ckpt` stays until the stage is done, `best.ckpt` until the run is."""

    settings: Settings
    streams: Callable[[Stage, int, int, torch.device], BatchStream]
    trainer: Callable[..., L.Trainer]
    mine: Callable[[Stage, int, Path], Stage]
    dev: DevScore | None
    folder: Path
    given: Callable[[], Trainable]

    def fit(
        self, retriever: Trainable, stages: Sequence[Stage], resume: bool, trained_before: bool = False
    ) -> tuple[dict[str, Any], list[Stage]]:
        """Train in place and return, a stage, its steps, seconds and best dev score; and the stages as they were trained.

        After a stage the weights of its best epoch by dev nDCG@10 are loaded (its last where there is no dev split). Where
        those of the last stage are worse than those before training, `keep_better` loads these, and the last summary says so;
        no earlier stage is gone back to, since a curriculum ends with its last one. With `resume`, finished stages are loaded
        and a broken one goes on from its last checkpoint. `trained_before`: all are finished, and the retriever has the
        weights of the last one.
        """
        summaries: dict[str, Any] = {}
        trained = []
        for number, stage in enumerate(stages):
            place = self._place(number, stage)
            stage = self.mine(stage, number, place / "candidates.jsonl")
            trained.append(stage)
            module = self._module(retriever, stage, first=number == 0)
            done = place / DONE
            if resume and done.is_file():
                if not trained_before:
                    _load(module, place)
                summaries[stage.name] = read_json(done)
                log.info("Stage %s was finished before and is loaded", stage.name)
                continue
            before = sum(stage_summary["steps"] for stage_summary in summaries.values())
            if self.dev and summaries:  # the weights are those that the stage before ended with
                self.dev.before = list(summaries.values())[-1][AFTER]
            summaries[stage.name] = self._stage(module, stage, number, place, resume, before)
            if rank_zero_only.rank == 0:
                write_json(done, summaries[stage.name])
                if not self.settings.keep_checkpoints:
                    (place / LAST).unlink(missing_ok=True)
            if number and (fell := _fell(summaries[stage.name], summaries[stage.name])):
                line = "Stage %s: dev nDCG@10 fell from %.4f to %.4f; the weights of no earlier stage are gone back to"
                log.warning(line, stage.name, *fell)
        if not trained_before and self.dev:
            self._keep_better(retriever, summaries, done, self.dev.questions)
        return summaries, trained

    def finished(self, stages: Sequence[Stage]) -> bool:
        """Whether no stage is left to train."""
        return all((self._place(number, stage) / DONE).is_file() for number, stage in enumerate(stages))

    def _place(self, number: int, stage: Stage) -> Path:
        return self.folder / f"{number}-{stage.name}"

    def _keep_better(self, retriever: Trainable, summaries: Mapping[str, dict[str, Any]], done: Path, questions: int) -> None:
        """`done`: the file of the last stage's summary, to which is added what is kept. `questions`: that decide."""
        every = list(summaries.values())
        first, last = every[0], every[-1]
        last[GIVEN_KEPT] = self.settings.keep_better and _fell(first, last) is not None
        if rank_zero_only.rank == 0:
            write_json(done, last)
        if kept := given_kept(summaries):
            retriever.load_state_dict(self.given().state_dict())
            log.warning(
                "dev nDCG@10 (%d questions) was %.4f before training and is %.4f after it: the weights from before are kept, "
                "and model/ holds them; training.keep_better=false keeps what was trained", questions, *kept,
            )  # fmt: skip

    def _stage(
        self, module: RetrieverModule, stage: Stage, number: int, place: Path, resume: bool, before: int
    ) -> dict[str, Any]:
        last = place / LAST
        best = Best(
            place,
            Path(BEST).stem,
            monitor=NAME if self.dev else None,
            mode="max",
            save_weights_only=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        position, clock = StreamPosition(), Stopwatch()
        callbacks: list[L.Callback] = [position, clock, StepSeed(self.settings.seed, stage.name), StageMark(number)]
        if self.dev:
            callbacks.append(self.dev)
            if self.settings.patience is not None:
                stop = EarlyStopping(NAME, mode="max", patience=self.settings.patience, check_on_train_epoch_end=True)
                callbacks.append(stop)  # whatever the trainer's options say of validation
        limit = {"max_epochs": stage.epochs} if stage.steps is None else {"max_epochs": -1, "max_steps": stage.steps}
        trainer = self.trainer(**limit, callbacks=[*callbacks, best, Latest(last, self.settings.checkpoint_every)])
        from_step = int(torch.load(last, mmap=True, weights_only=False)["global_step"]) if resume and last.is_file() else 0
        begin_stage(trainer.loggers, StageStart(number, stage.name, from_step, before))
        length = f"{stage.epochs} epochs" if stage.steps is None else f"{stage.steps} steps"
        log.info("Stage %s: %d queries, %s, from step %d", stage.name, len(stage.examples), length, from_step)
        position.stream = self.streams(stage, trainer.global_rank, trainer.world_size, trainer.strategy.root_device)
        try:
            trainer.fit(module, position.stream, ckpt_path=last if from_step else None, weights_only=False)
        except (RuntimeError, MemoryError) as error:
            if not _memory_ran_out(error):
                raise
            raise UserError(
                f"stage {stage.name}: memory ran out ({str(error).splitlines()[0]}); take training.grad_cache=true, or "
                "a smaller retriever.token_budget, training.batch_size or retriever.passage_length"
            ) from error
        if trainer.interrupted:
            raise KeyboardInterrupt
        if not trainer.global_step:
            raise UserError(
                f"stage {stage.name}: the trainer made no step, so that nothing was learnt; see trainer.max_steps and what "
                "else of its options ends a training"
            )
        _load(module, place)
        module.zero_grad()  # gradients are as large as the weights, and would go to the device with them
        return {
            "queries": len(stage.examples),
            "steps": trainer.global_step,
            "seconds": round(clock.seconds, 2),
            DEV_QUESTIONS: self.dev.questions if self.dev else None,
            BEFORE: self.dev.before if self.dev else None,
            AFTER: float(best.best_model_score) if self.dev and best.best_model_score is not None else None,
        }

    def _module(self, retriever: Trainable, stage: Stage, first: bool) -> RetrieverModule:
        common = self.settings
        module = RetrieverModule(
            retriever,
            stage.loss or common.loss,
            common.optimizer if stage.learning_rate is None else partial(common.optimizer, lr=stage.learning_rate),
            common.warmup if stage.warmup is None else stage.warmup,
            stage.name,
            common.false_negative_margin,
            common.grad_cache,
            common.schedule,
            retriever.penalty_warmup if first else 0.0,
            common.terms,
        )
        module.train()  # models are loaded in eval mode, and Lightning leaves them as they are
        return module


def _fell(first: Mapping[str, Any], last: Mapping[str, Any]) -> tuple[float, float] | None:
    """The dev score before the first of two stages and that after the last one, where it is lower."""
    before, after = first[BEFORE], last[AFTER]
    return (before, after) if before is not None and after is not None and after < before else None


def _load(module: RetrieverModule, place: Path) -> None:
    """The weights of the stage's best epoch."""
    state = torch.load(place / BEST, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)


def _memory_ran_out(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
