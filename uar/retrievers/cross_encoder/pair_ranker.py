"""Ranking by a model that scores a query and a passage together: it re-ranks what another retriever finds."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from uar.collections import Collection
from uar.collections.token_ids import Tokens
from uar.errors import UserError
from uar.launch.bars import bar
from uar.machine.precision import resolve_dtype
from uar.retrievers.ranker import Pools, Ranker, rows_of
from uar.retrievers.session import Session
from uar.retrievers.wrapped_ranker import WrappedRanker
from uar.storage.ordering import best_first, followed
from uar.storage.runs import Run

BLOCK = 1_024  # pairs whose tokens are held at a time


class PairScorer(Protocol):
    """A model that gives a score of a pair of token ids."""

    name: str

    def __call__(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> torch.Tensor: ...
    def eval(self) -> object: ...
    def passage_tokens(self, collection: Collection) -> Tokens: ...
    def query_tokens(self, collection: Collection) -> Tokens: ...
    def pair_lengths(self, queries: np.ndarray, passages: np.ndarray) -> np.ndarray: ...
    @property
    def device(self) -> torch.device: ...


def reach(first: Ranker, own: int, collection: Collection, depth: int) -> int:
    """As that of a `Ranker`, where the best `own` of what `first` finds are put into another order."""
    return min(depth, first.reach(collection, max(depth, own)))


class PairRanker(WrappedRanker):
    """`first` finds passages, of which `model` puts the best `depth` into its order; the others follow."""

    def __init__(self, model: PairScorer, first: Ranker, depth: int, session: Session) -> None:
        super().__init__(first, f"{first.name}, the best {depth} re-ranked by {model.name}")
        self._model, self._depth, self._session = model, depth, session

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        run = self._ranker.rank(collection, query_ids, max(depth, self._depth))
        scores = self.score(collection, {q: [d for d, _ in hits[: self._depth]] for q, hits in run.items()})
        return {q: followed(scores[q], hits)[:depth] for q, hits in run.items()}

    def reach(self, collection: Collection, depth: int) -> int:
        return reach(self._ranker, self._depth, collection, depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        rows = rows_of(collection, pools)
        counts = [len(rows[q]) for q in pools]
        passages = np.concatenate([np.zeros(0, np.int64), *rows.values()])
        queries = np.repeat(np.array([collection.query_rows[q] for q in pools], dtype=np.int64), counts)
        scores = np.split(self._scores(collection, queries, passages), np.cumsum(counts)[:-1])
        return {
            q: best_first(zip(pool, own.tolist(), strict=True)) for (q, pool), own in zip(pools.items(), scores, strict=True)
        }

    @torch.inference_mode()
    def _scores(self, collection: Collection, queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
        """(pairs,) fp32; `queries`, `passages`: rows. UserError where one is not finite. Long pairs come first, in blocks of
        pairs of nearly one length."""
        model, precision = self._model, self._session.search.precision
        model.eval()
        of_query, of_passage = model.query_tokens(collection), model.passage_tokens(collection)
        order = np.argsort(-model.pair_lengths(of_query.lengths(queries), of_passage.lengths(passages)), kind="stable")
        dtype, out = resolve_dtype(precision), np.empty(len(order), np.float32)
        with bar("score pairs", len(order), "pairs") as shown:
            for start in range(0, len(order), BLOCK):
                block = order[start : start + BLOCK]
                pairs = [(of_query[q], of_passage[p]) for q, p in zip(queries[block], passages[block], strict=True)]
                with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
                    out[block] = model(pairs).float().cpu().numpy()
                shown.advance(len(block))
        wrong = int((~np.isfinite(out)).sum())
        if wrong:
            raise UserError(
                f"{model.name}: {wrong} of {len(out)} scores are no finite numbers (precision={precision}); train with a "
                "smaller training.learning_rate or trainer.precision=fp32, or score with search.precision=fp32"
            )
        return out
