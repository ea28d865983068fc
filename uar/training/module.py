"""The Lightning module: a step scores the queries of a batch against its passages, and takes the loss."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import lightning as L
import torch

from uar.errors import UserError
from uar.losses import Loss, learns_from_others, takes_chance, takes_utility, takes_weights
from uar.losses.masking import counted
from uar.retrievers.trainable import Scored, Trainable
from uar.training.batches import Batch
from uar.training.further_terms import FurtherTerms
from uar.training.gather import gather_passages, mean_of_rows
from uar.training.masks import close_to_positive
from uar.training.optimizer import parameter_groups
from uar.training.schedules import Schedule, linear

NO_TERMS = FurtherTerms()


def is_logged(trainer: L.Trainer) -> bool:
    """Whether Lightning logs the step that was taken last, and so waits for it."""
    return trainer.global_step % trainer.log_every_n_steps == 0


class RetrieverModule(L.LightningModule):
    """`optimizer`: a partial that takes parameters; `warmup`: share of the steps with rising learning rate; `schedule`: how it
    goes on, see `schedules`. `stage`: name that the logged values carry. `false_negative_margin`: see `close_to_positive`, in
    units of the unscaled score. `penalty_warmup`: share of the steps in which `Scored.penalties` rise from 0.
    `terms`: beside the loss, of further texts.
    `grad_cache`: texts are encoded chunk by chunk without keeping activations, and again for the gradient
    (arXiv 2101.06983)."""

    def __init__(
        self,
        retriever: Trainable,
        loss: Loss,
        optimizer: partial,
        warmup: float,
        stage: str,
        false_negative_margin: float | None = None,
        grad_cache: bool = False,
        schedule: Schedule = linear,
        penalty_warmup: float = 0.0,
        terms: FurtherTerms = NO_TERMS,
    ) -> None:
        super().__init__()
        self.retriever, self._loss = retriever, loss
        self._optimizer, self._warmup, self._schedule, self.stage = optimizer, warmup, schedule, stage
        self._penalty_warmup, self._terms = penalty_warmup, terms
        self._margin, self._grad_cache = false_negative_margin, grad_cache
        self._takes_utility, self._takes_weights = takes_utility(loss), takes_weights(loss)
        self._takes = [name for name, takes in (("utility", takes_utility), ("chance", takes_chance)) if takes(loss)]
        self._broken: torch.Tensor | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        texts = replace(self._terms.texts(batch), others_teach=learns_from_others(self._loss))
        every = self.retriever.batch_scores(texts, gather_passages, cached=self._grad_cache)
        found = every.of(slice(len(batch.queries)))
        loss, weights = self._loss_of(batch, found)
        with torch.autocast(self.device.type, enabled=False):
            terms = self._terms.of(batch, every, self.retriever.scale, weights)
        loss, weight = loss + sum(terms.values()), weights.sum()
        scaled, mean = mean_of_rows(loss, weight)
        penalties = {name: self._penalty_factor() * penalty for name, penalty in found.penalties.items()}
        regular = sum(penalties.values(), torch.zeros_like(mean))
        self._remember_broken(mean, regular)
        self.log(self.loss_name, mean, batch_size=len(batch.queries))
        for name, value in {**penalties, **found.facts, **terms}.items():
            self.log(f"{self.stage}/{name}", value, batch_size=len(batch.queries))
        return scaled + regular

    @property
    def loss_name(self) -> str:
        return f"{self.stage}/loss"

    def _remember_broken(self, mean: torch.Tensor, regular: torch.Tensor) -> None:
        """The first step whose loss is no number, and it; alike on all processes. On a GPU nothing waits for it here."""
        now = torch.stack([torch.full_like(mean, self.global_step + 1), mean])
        before = self._broken
        self._broken = torch.where((mean + regular).isfinite(), torch.zeros_like(now), now)
        if before is not None:
            self._broken = torch.where(before[0] > 0, before, self._broken)

    def on_train_batch_end(self, *_: Any) -> None:
        if is_logged(self.trainer):
            self._stop_where_broken()

    def _stop_where_broken(self) -> None:
        step, loss = (0.0, 0.0) if self._broken is None else self._broken.tolist()
        if step:
            raise UserError(
                f"stage {self.stage}: the loss is {loss} at step {step:.0f}; training stops and exports no model; try "
                "trainer.precision=fp32, a smaller training.learning_rate or a smaller retriever.scale"
            )

    def _penalty_factor(self) -> float:
        if not self._penalty_warmup:
            return 1.0
        rising = self._penalty_warmup * int(self.trainer.estimated_stepping_batches)
        return min(1.0, self.trainer.global_step / rising) ** 2

    def _loss_of(self, batch: Batch, found: Scored) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted mean over this process' rows that count, and (queries,) the weights of these, 0 for others."""
        targets, valid = batch.masks(found.rows)
        if found.scored is not None:
            targets, valid = targets & found.scored, valid & found.scored
        with torch.autocast(self.device.type, enabled=False):
            if self._margin is not None:
                valid &= ~close_to_positive(found.scores, targets, self._margin)
            learnt = targets & valid
            further: dict[str, torch.Tensor] = {}
            if self._takes:
                utility = batch.utilities(found.rows)
                if found.scored is not None:
                    utility = utility.masked_fill(~found.scored, torch.nan)
                learnt = utility.isfinite() if self._takes_utility else learnt
                valid, further = valid | learnt, dict.fromkeys(self._takes, utility)
            if self._takes_weights:
                further["weights"] = batch.row_weights
            views = found.views or (found.scores,)
            losses = [self._loss(self.retriever.scale * scores, targets, valid, **further) for scores in views]
            return torch.stack(losses).mean(), counted(learnt, batch.row_weights)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What does not learn, such as the weights that adapters lie on, is in the model that the run began with. After a loss
        that is no number nothing is kept."""
        self._stop_where_broken()
        for name in self._frozen():
            checkpoint["state_dict"].pop(name, None)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        return super().load_state_dict({**self._frozen(), **state_dict}, *args, **options)

    def _frozen(self) -> dict[str, torch.Tensor]:
        return {name: weight for name, weight in self.named_parameters() if not weight.requires_grad}

    def configure_optimizers(self) -> dict[str, Any]:
        learned = [p for p in self.parameters() if p.requires_grad]
        optimizer = self._optimizer(parameter_groups(learned, self._optimizer))
        total = max(1, int(self.trainer.estimated_stepping_batches))
        rising = max(1, round(self._warmup * total))
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._schedule(step, rising, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning cuts gradients, which it refuses for a fused optimizer in bf16, though they have no scale there."""
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None or not gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)
