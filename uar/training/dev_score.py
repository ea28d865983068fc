"""nDCG@10 over the dev pools at the end of each epoch: what checkpoints are chosen by."""

import logging
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from uar.collections import Collection
from uar.collections.tokens import Tokens
from uar.evaluation.measures import per_query
from uar.training.module import RetrieverModule

log = logging.getLogger(__name__)
NAME = "dev/nDCG@10"


class DevScore(L.Callback):
    """Ranks each dev query's pool. Every process scores its share of the queries, each query once, and all learn the mean."""

    def __init__(
        self, collection: Collection, pools: dict[str, list[str]], query_tokens: Tokens, passage_tokens: Tokens
    ) -> None:
        self._collection = collection
        self._pools = {q: pool for q, pool in pools.items() if pool}
        self._query_tokens, self._passage_tokens = query_tokens, passage_tokens
        self._query_rows = {q: row for row, q in enumerate(collection.queries)}

    @torch.inference_mode()
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, RetrieverModule):
            raise TypeError(f"DevScore scores a RetrieverModule, not a {type(pl_module).__name__}")
        mine = list(self._pools)[trainer.global_rank :: trainer.world_size]
        pl_module.eval()
        with trainer.precision_plugin.forward_context():
            values = self._scores(pl_module, mine)
        pl_module.train()
        total = torch.tensor([sum(values), float(len(values))], device=pl_module.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        pl_module.log(NAME, total[0] / total[1].clamp(min=1), prog_bar=True)

    def _scores(self, module: RetrieverModule, query_ids: list[str]) -> list[float]:
        if not query_ids:
            return []
        retriever, corpus = module.retriever, self._collection.corpus
        doc_ids = sorted({d for q in query_ids for d in self._pools[q]})
        place = {d: at for at, d in enumerate(doc_ids)}
        queries = retriever([self._query_tokens[self._query_rows[q]] for q in query_ids])
        passages = retriever([self._passage_tokens[row] for row in corpus.rows(doc_ids)])
        run: dict[str, list[tuple[str, float]]] = {}
        for at, query_id in enumerate(query_ids):
            pool = self._pools[query_id]
            scores = passages[[place[d] for d in pool]] @ queries[at]
            run[query_id] = sorted(zip(pool, scores.tolist(), strict=True), key=lambda hit: (-hit[1], hit[0]))
        found = per_query(self._collection, run, ["nDCG@10"], query_ids)
        return [value for _, _, value in found]


def best_score(callback: Any) -> float | None:
    """The monitored score of a ModelCheckpoint, where it has one."""
    score = callback.best_model_score
    return None if score is None else float(score)
