"""The Lightning module: a step encodes all queries and all passages once, scores them against each other, takes the loss."""

from functools import partial
from typing import Any

import lightning as L
import torch

from uar.losses import Loss, takes_utility
from uar.retrievers.bi_encoder import BiEncoder
from uar.training.batches import Batch
from uar.training.gather import gather_passages
from uar.training.masks import close_to_positive


class RetrieverModule(L.LightningModule):
    """`optimizer`: a partial that takes parameters; `warmup`: share of the steps with rising learning rate, then it falls
    linearly to zero. `stage`: name that the logged values carry. `false_negative_margin`: see `close_to_positive`, in units of
    the unscaled score. `grad_cache`: texts are encoded chunk by chunk without keeping activations, and again for the
    gradient (arXiv 2101.06983)."""

    def __init__(
        self,
        retriever: BiEncoder,
        loss: Loss,
        optimizer: partial,
        warmup: float,
        stage: str,
        false_negative_margin: float | None = None,
        grad_cache: bool = False,
    ) -> None:
        super().__init__()
        self.retriever, self._loss = retriever, loss
        self._optimizer, self._warmup, self._stage = optimizer, warmup, stage
        self._margin, self._grad_cache = false_negative_margin, grad_cache
        self._takes_utility = takes_utility(loss)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        queries = self.retriever(batch.queries, role="query", cached=self._grad_cache)
        own = self.retriever(batch.passages, role="passage", cached=self._grad_cache)
        passages, rows = gather_passages(own, batch.rows)
        loss = self._loss_of(batch, queries, passages, rows)
        self.log(f"{self._stage}/loss", loss, prog_bar=True, batch_size=len(batch.queries))
        return loss

    def _loss_of(self, batch: Batch, queries: torch.Tensor, passages: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        targets, valid = batch.masks(rows)
        with torch.autocast(self.device.type, enabled=False):
            scores = queries @ passages.T
            if self._margin is not None:
                valid &= ~close_to_positive(scores, targets, self._margin)
            scores = self.retriever.scale * scores
            if not self._takes_utility:
                return self._loss(scores, targets, valid)
            utility = batch.utilities(rows)
            return self._loss(scores, targets, valid | utility.isfinite(), utility)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
        total = max(1, int(self.trainer.estimated_stepping_batches))
        rising = max(1, round(self._warmup * total))

        def factor(step: int) -> float:
            return (step + 1) / rising if step < rising else max(0.0, (total - step) / max(1, total - rising))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
