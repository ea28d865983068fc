"""A cross-encoder: one transformer reads a query and a passage together, and gives one score."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from uar.collections import Collection
from uar.collections.token_ids import Tokens, corpus_tokens, query_tokens
from uar.errors import UserError
from uar.machine.model_files import identity
from uar.machine.unrounded import UNROUNDED, unrounded_results
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.cross_encoder.pair_form import PairForm
from uar.retrievers.cross_encoder.pair_ranker import PairRanker, reach
from uar.retrievers.cross_encoder.scorer_files import export, is_cross_encoder, load_scorer, pair_length
from uar.retrievers.kind import Kind
from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.retrievers.token_batches import TokenBatches
from uar.retrievers.trainable import Exchange, Scored, Texts, Trainable, suited_rate
from uar.retrievers.transformer.dropout import use_fast_dropout
from uar.retrievers.transformer.fast_attention import hidden_states, use_fast_attention
from uar.retrievers.transformer.loading import load_tokenizer, loading, use_gradient_checkpointing
from uar.retrievers.weights import weights_hash
from uar.storage.files import digest

PAIRS = """from sentence_transformers import {kind}

model = {kind}("{model}")
scores = model.predict([("who makes honey", "Bees make honey from the nectar of flowers.")])"""


class CrossEncoder(Trainable):
    """Scores pairs of token ids. It cannot search, so it re-ranks the best `depth` passages of a query that `first` finds.

    `first`: any retriever; None is BM25. `layers`: keep the first so many layers. `length`: tokens of a query and a passage
    together; None is what the model's files say; the longer of both is cut first. `dropout`: in place of the model's own, None
    keeps it. `new_head`: a model without a scoring head gets one, which has to be trained; false refuses such a model.

    In training a query is scored against its own passages, and against a passage of each of `others` other queries of its
    process' batch, their first, which is mostly a positive: from a query's own passages alone a model learns which passages
    look like positives, whatever is asked. `in_batch`: against all passages of the batch, which costs as many pairs.
    `gradient_checkpointing`: keep one activation a layer and compute the rest again. `token_budget`: tokens, padding included,
    of one forward pass; pairs are sorted by length first.
    """

    kind = Kind("cross-encoder", "CrossEncoder", "text-ranking", ("cross-encoder", "reranker"), PAIRS)

    def __init__(
        self,
        model: str,
        first: Ranker | None = None,
        depth: int = 100,
        revision: str | None = None,
        layers: int | None = None,
        length: int | None = None,
        dropout: float | None = None,
        new_head: bool = True,
        others: int = 2,
        in_batch: bool = False,
        gradient_checkpointing: bool = False,
        token_budget: int | None = None,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"retriever.depth={depth}: at least 1 passage a query is needed")
        if others < 0:
            raise UserError(f"retriever.others={others}: a whole number from 0 on is needed")
        with loading(model) as path:
            self.tokenizer: Any = load_tokenizer(model, path, revision, "")
            pad = int(self.tokenizer.pad_token_id)
            scorer, drawn = load_scorer(model, path, revision, layers, dropout, new_head, pad)
            self.length = pair_length(length, path, revision, self.tokenizer, scorer.config)
        self.scorer: Any = scorer
        self.is_baseline = not drawn
        self.learning_rate = suited_rate(drawn, not drawn, layers)
        self._form = PairForm.of(self.tokenizer, self.length)
        self.batches = TokenBatches(token_budget, pad, on_cpu=4_096)
        self._found_by, self._depth = (first or BM25Ranker(),), depth  # in a tuple: no part of what is trained and saved
        self._others, self._in_batch = others, in_batch
        if gradient_checkpointing:
            use_gradient_checkpointing(self.scorer, model)
        use_fast_dropout(self.scorer)
        use_fast_attention(self.scorer)
        self.name = f"cross-encoder {identity(model, revision)}" + (f"-l{layers}" if layers else "")

    @classmethod
    def reads(cls, path: str, revision: str | None) -> bool:
        return is_cross_encoder(path, revision)

    def forward(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], cached: bool = False) -> torch.Tensor:
        """(pairs,) scores, fp32 or fp64, of token ids of queries and passages, without special tokens. `cached`: see
        `TokenBatches.each`."""
        texts, starts = zip(*(self._form.joined(query, passage) for query, passage in pairs), strict=True)
        begins = torch.tensor(starts, device=self.device)

        def scores(ids: torch.Tensor, mask: torch.Tensor, chunk: list[int]) -> torch.Tensor:
            places = torch.arange(ids.shape[1], device=ids.device)
            types = (places >= begins[chunk][:, None]).long() * mask if self._form.second is not None else None
            logits = self._logits(ids, mask, types)
            return logits.to(torch.promote_types(logits.dtype, torch.float32))

        return self.batches.each(texts, scores, self.device, cached)

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """(pairs,)"""
        scorer = self.scorer
        of_one = [part for part in scorer.modules() if isinstance(part, torch.nn.Linear) and part.out_features == 1]
        with unrounded_results(of_one[-1] if of_one else None):
            if scorer.config.model_type == "bert":  # whose pairs need no padding on a CPU
                states = hidden_states(scorer.bert, ids, mask, types)
                return scorer.classifier(scorer.dropout(scorer.bert.pooler(states)))[:, 0]
            of_pairs = {} if types is None else {"token_type_ids": types}
            return scorer(input_ids=ids, attention_mask=mask, **of_pairs).logits[:, 0]

    def batch_scores(self, texts: Texts, exchange: Exchange, cached: bool = False) -> Scored:
        own = torch.ones_like(texts.own) if self._in_batch else texts.own
        if self._others and texts.others_teach:
            own = own | _first_of_others(texts.own, self._others)
        pairs = [(texts.queries[q], texts.passages[p]) for q, p in own.nonzero().tolist()]
        scores = self(pairs, cached=cached)
        return Scored(scores.new_zeros(own.shape).masked_scatter(own, scores), texts.rows, own)

    @property
    def scale(self) -> float:
        return 1.0

    def passage_tokens(self, collection: Collection) -> Tokens:
        return corpus_tokens(collection, self.tokenizer, self.length, bare=True)

    def query_tokens(self, collection: Collection) -> Tokens:
        return query_tokens(collection, self.tokenizer, self.length, bare=True)

    def weights_key(self) -> str:
        return weights_hash(self, self.length, UNROUNDED)

    def key_with(self, weights: str, collection: Collection) -> str | None:
        own, first = super().key_with(weights, collection), self._first.key(collection)
        return None if first is None else digest(own, first, self._depth)

    @property
    def _first(self) -> Ranker:
        return self._found_by[0]

    def with_room(self, query_length: int | None) -> "CrossEncoder":
        """A pair has its length whatever is added to the query; what finds the passages has room."""
        other = copy(self)
        other._found_by = (self._first.with_room(query_length),)
        return other

    @property
    def searches(self) -> bool:
        return self._first.searches

    @property
    def lengths(self) -> dict[str, int]:
        return {"length": self.length, **{f"first.{name}": n for name, n in self._first.lengths.items()}}

    def reach(self, collection: Collection, depth: int) -> int:
        return reach(self._first, self._depth, collection, depth)

    def pair_lengths(self, queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
        """Tokens of pairs, from those of their queries and passages."""
        return np.add(*self._form.lengths(queries, passages)) + self._form.special

    @property
    def search_options(self) -> frozenset[str]:
        return super().search_options | self._first.search_options

    def opened(self, session: Session, part: str = "") -> Ranker:
        session.place(self)
        first = self._first.opened(session, f"{part}/first" if part else "first")
        return PairRanker(self, first, self._depth, session)

    def save(self, folder: Path) -> None:
        """A folder that sentence-transformers' `CrossEncoder(folder)` and this class load."""
        export(folder, self.scorer, self.tokenizer, self.length)


def _first_of_others(own: torch.Tensor, others: int) -> torch.Tensor:
    """(queries, passages) true at the first own passage of each of the next `others` queries, round the batch."""
    first = nn.functional.one_hot(own.int().argmax(dim=1), own.shape[1]).bool()
    following = [first.roll(-step, 0) for step in range(1, min(others, len(own) - 1) + 1)]
    return torch.stack(following).any(dim=0) if following else torch.zeros_like(own)
