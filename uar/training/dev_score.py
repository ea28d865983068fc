"""nDCG@10 over the dev pools, before a stage and at the end of each epoch: what weights are chosen by."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from uar.collections import Collection
from uar.evaluation.measures import per_query
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.storage.files import digest
from uar.training.module import RetrieverModule

NAME = "dev/nDCG@10"


class DevScore(L.Callback):
    """Ranks each dev query's pool. Every process scores its share of the queries, each query once, and all learn the mean.

    `precision`: bf16, fp32 or fp16, as in training. `before`: the score at the start of the stage, computed where it is None.
    """

    before: float | None = None

    def __init__(self, collection: Collection, pools: Mapping[str, list[str]], precision: str) -> None:
        self._collection, self._precision = collection, precision
        self._pools = {q: pool for q, pool in pools.items() if pool}

    @property
    def questions(self) -> int:
        """How many are scored."""
        return len(self._pools)

    @property
    def asked(self) -> tuple[Collection, list[str]]:
        """What is scored: the split, and the ids of its questions."""
        return self._collection, list(self._pools)

    @property
    def key(self) -> str:
        """Of what is scored: the collection, and which passages of each query are ranked."""
        return digest(self._collection.hash, {q: sorted(pool) for q, pool in self._pools.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"before": self.before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict["before"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.before is None:  # a stage that goes on has it from its checkpoint
            self.before = float(self._mean(trainer, pl_module))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log(NAME, self._mean(trainer, pl_module))

    def _mean(self, trainer: L.Trainer, pl_module: L.LightningModule) -> torch.Tensor:
        if not isinstance(pl_module, RetrieverModule):
            raise TypeError(f"DevScore scores a RetrieverModule, not a {type(pl_module).__name__}")
        mine = {q: self._pools[q] for q in list(self._pools)[trainer.global_rank :: trainer.world_size]}
        values: list[float] = []
        if mine:
            with Session(lambda: ExactSearch(precision=self._precision), moves=False) as session:
                run = pl_module.retriever.opened(session).score(self._collection, mine)
            values = [value for _, _, value in per_query(self._collection, run, ["nDCG@10"], mine)]
        pl_module.train()
        total = torch.tensor([sum(values), float(len(values))], device=pl_module.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        return total[0] / total[1].clamp(min=1)
