"""The Lightning module: a step encodes all queries and all passages once, scores them against each other, takes the loss."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch

from uar.retrievers.bi_encoder import BiEncoder
from uar.training.batches import Batch, masks
from uar.training.gather import gather_passages

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class RetrieverModule(L.LightningModule):
    """`optimizer`: a partial that takes parameters; `warmup`: share of the steps with rising learning rate, then it falls
    linearly to zero. `stage`: name that the logged values carry."""

    def __init__(self, retriever: BiEncoder, loss: Loss, optimizer: partial, warmup: float, stage: str) -> None:
        super().__init__()
        self.retriever, self._loss = retriever, loss
        self._optimizer, self._warmup, self._stage = optimizer, warmup, stage

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        queries = self.retriever(batch.queries)
        passages, rows = gather_passages(self.retriever(batch.passages), batch.rows)
        targets, valid = masks(batch, rows)
        with torch.autocast(self.device.type, enabled=False):
            scores = self.retriever.scale * queries @ passages.T
            loss = self._loss(scores, targets, valid)
        self.log(f"{self._stage}/loss", loss, prog_bar=True, batch_size=len(batch.queries))
        return loss

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
