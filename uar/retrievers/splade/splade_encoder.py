"""SPLADE (arXiv 2109.10086): a weight for each token of the vocabulary, most of them 0, by a masked language model."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uar.collections import Collection
from uar.collections.token_ids import Tokens, corpus_tokens, query_tokens
from uar.errors import UserError
from uar.machine.model_files import identity
from uar.retrievers.kind import Kind
from uar.retrievers.ranker import Ranker, Search
from uar.retrievers.session import Session
from uar.retrievers.splade.masked_lm import head_states, load_masked_lm
from uar.retrievers.splade.max_logits import max_logits
from uar.retrievers.splade.penalties import PENALTIES, check_penalty, mean_of_passages, mean_of_queries
from uar.retrievers.splade.sparse_files import ACTIVATIONS, Sparse, export, is_sparse, read_sparse
from uar.retrievers.splade.sparse_ranker import SparseRanker
from uar.retrievers.splade.token_weights import TokenWeights, read_weights
from uar.retrievers.token_batches import TokenBatches
from uar.retrievers.trainable import Encoder, Exchange, suited_rate
from uar.retrievers.transformer.dropout import use_fast_dropout
from uar.retrievers.transformer.fast_attention import use_fast_attention
from uar.retrievers.transformer.loading import check_alike, chosen, load_tokenizer, loading, with_room
from uar.retrievers.transformer.published_files import reader
from uar.storage.files import digest

log = logging.getLogger(__name__)
QUERIES = ("model", "tokens")


class Splade(Encoder):
    """Encodes token ids to weights of the vocabulary's tokens: log(1 + max(0, logit)), the greatest over the text.

    `layers`: keep the first so many layers. `activation`: relu, or log1p_relu, which takes the logarithm twice
    (arXiv 2504.14839). `queries`: `model`, or `tokens`, with which a query is its own tokens, and no model reads it. Their
    weights are the model's own, else those of `query_weights`, a file or a collection (see `read_weights`), else 1.
    `learn_query_weights`: training changes them. `activation`, `queries`, the prefixes and the lengths default to what the
    model's own files say, else relu, model, none, and 64 and 256 tokens.

    `penalty`: flops or l1, times `query_penalty` of queries, where a model makes them, and `passage_penalty` of passages; see
    `Trainable.penalty_warmup`. `dropout`: in place of the model's own, None keeps it. `scale`: what training multiplies scores
    by. `most_tokens`: a passage is searched by so many tokens, those of the greatest weight; None is all. `token_budget`:
    tokens of one forward pass. `new_head`: an encoder without a masked-language-model head gets one (see `make_head`).
    """

    kind = Kind("learned sparse retriever", "SparseEncoder", "feature-extraction", ("sparse-encoder", "sparse", "splade"))

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        layers: int | None = None,
        activation: str | None = None,
        queries: str | None = None,
        query_weights: str | None = None,
        learn_query_weights: bool = False,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        query_length: int | None = None,
        passage_length: int | None = None,
        penalty: str = "flops",
        query_penalty: float = 3e-4,
        passage_penalty: float = 1e-4,
        penalty_warmup: float = 0.33,
        dropout: float | None = None,
        scale: float = 1.0,
        most_tokens: int | None = None,
        token_budget: int | None = None,
        new_head: bool = False,
    ) -> None:
        super().__init__()
        check_penalty(penalty, query_penalty, passage_penalty, penalty_warmup)
        if scale <= 0:
            raise UserError(f"retriever.scale={scale}: above 0 is needed")
        if most_tokens is not None and most_tokens < 1:
            raise UserError(f"retriever.most_tokens={most_tokens}: a whole number from 1 on is needed, or null")
        with loading(model) as path:
            own = read_sparse(model, path, revision, new_head)
            self.learning_rate = suited_rate(False, own.trained, layers)
            self.mlm: Any = load_masked_lm(model, path, revision, own.place, layers, dropout, new_head)
            self.tokenizer: Any = load_tokenizer(model, path, revision, own.place, own.do_lower_case)
            if own.queries is not None:
                check_alike(self.tokenizer, load_tokenizer(model, path, revision, own.queries, own.do_lower_case), model)
        self.queries = queries or ("model" if own.weights is None else "tokens")
        activation = activation or own.activation
        for option, value, allowed in (("queries", self.queries, QUERIES), ("activation", activation, ACTIVATIONS)):
            if value not in allowed:
                raise UserError(f"retriever.{option}={value!r} is not known; allowed: {', '.join(allowed)}")
        self.settings = chosen(
            own, self.mlm.config, query_prefix, passage_prefix, query_length, passage_length, activation=activation
        )
        self.token_weights = self._token_weights(model, query_weights, learn_query_weights)
        self._penalty_name, self._query_penalty, self._passage_penalty = penalty, query_penalty, passage_penalty
        self.penalty_warmup = penalty_warmup
        self.batches = TokenBatches(token_budget, int(self.tokenizer.pad_token_id))
        self._scale, self._most_tokens = scale, most_tokens
        use_fast_dropout(self.mlm)
        use_fast_attention(self.mlm)
        self.name = f"splade {_identity(model, path, revision, own)}" + (f"-l{layers}" if layers else "")

    def _token_weights(self, model: str, given: str | None, learn: bool) -> TokenWeights | None:
        if self.queries == "model":
            if given is not None or learn:
                raise UserError(
                    f"retriever.query_weights={given}, learn_query_weights={learn}: weights of tokens are of "
                    "retriever.queries=tokens; set this too, or leave both"
                )
            return None
        if len(self.tokenizer) > self.dim:
            raise UserError(
                f"retriever.queries=tokens: the tokenizer of {model} has {len(self.tokenizer)} tokens, its head {self.dim}; "
                "set it to model, or choose a model that has as many"
            )
        if self.settings.weights is not None:  # which may have been learnt
            weights = self.settings.weights
            if given is not None:
                log.info("retriever.query_weights=%s has no effect: %s has weights of its own", given, model)
        elif given is not None:
            weights = read_weights(given, self.tokenizer, self.dim, self.settings.passage_length)
        else:
            weights = torch.ones(self.dim)
        return TokenWeights(weights, learn)

    @classmethod
    def reads(cls, path: str, revision: str | None) -> bool:
        return is_sparse(path, revision)

    @classmethod
    def resembles(cls, path: str, revision: str | None) -> bool:
        """Learned sparse models that are published without files of sentence-transformers are any masked language model."""
        read = reader(path, revision)
        architectures = (read("config.json") or {}).get("architectures") or []
        return not read("modules.json") and any(name.endswith("ForMaskedLM") for name in architectures)

    @property
    def dim(self) -> int:
        return int(self.mlm.get_output_embeddings().out_features)

    @property
    def scale(self) -> float:
        return self._scale

    @property
    def vector_settings(self) -> tuple[object, ...]:
        return self.settings.activation, self.queries

    def key_with(self, weights: str, collection: Collection) -> str:
        return digest(super().key_with(weights, collection), self._most_tokens)

    @property
    def lengths(self) -> dict[str, int]:
        return {"splade.query_length": self.settings.query_length, "splade.passage_length": self.settings.passage_length}

    def with_room(self, query_length: int | None) -> "Splade":
        return with_room(self, query_length, self.mlm.config)

    def passage_tokens(self, collection: Collection) -> Tokens:
        return corpus_tokens(collection, self.tokenizer, self.settings.passage_length, self.settings.passage_prefix)

    def query_tokens(self, collection: Collection) -> Tokens:
        bare = self.queries == "tokens"
        return query_tokens(collection, self.tokenizer, self.settings.query_length, self.settings.query_prefix, bare)

    def forward(self, texts: Sequence[np.ndarray], role: str = "passage", cached: bool = False) -> torch.Tensor:
        """(texts, vocabulary) fp32, none below 0."""

        def weigh(ids: torch.Tensor, mask: torch.Tensor, chunk: list[int]) -> torch.Tensor:
            if role == "query" and self.token_weights is not None:
                return self.token_weights(ids, mask, int(self.tokenizer.pad_token_id))
            weights = max_logits(head_states(self.mlm, ids, mask), mask.bool(), self.mlm.get_output_embeddings())
            for _ in range(ACTIVATIONS[self.settings.activation]):
                weights = weights.log1p()
            return weights

        return self.batches.each(texts, weigh, self.device, cached)

    def regularised(
        self, queries: torch.Tensor, passages: torch.Tensor, rows: torch.Tensor, exchange: Exchange
    ) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """The penalties, and tokens of a weight above 0 of a text."""
        name, penalty = self._penalty_name, PENALTIES[self._penalty_name]
        found = {f"passage_{name}": self._passage_penalty * penalty(mean_of_passages(passages, rows))}
        if self.token_weights is None:
            found[f"query_{name}"] = self._query_penalty * penalty(mean_of_queries(queries, exchange))
        vectors = {"query_nonzeros": queries, "passage_nonzeros": passages[rows >= 0]}
        return found, {of: (some.detach() > 0).sum(dim=1, dtype=torch.float32).mean() for of, some in vectors.items()}

    def check_search(self, search: Search, collection: Collection) -> None:
        if search.shortcut:
            raise UserError(
                f"search of {search.shortcut}: {self.name} has sparse vectors, which are searched exactly; leave search=exact "
                "as it is, and set retriever.most_tokens for a smaller index"
            )

    def opened(self, session: Session, part: str = "") -> Ranker:
        session.place(self)
        return SparseRanker(self, self._most_tokens, session, part)

    def save(self, folder: Path) -> None:
        """A folder that `SparseEncoder(folder)` of sentence-transformers and this class load."""
        own, weights = self.token_weights, None if self.token_weights is None else self.token_weights.now()
        frozen = own is not None and not own.parts.requires_grad
        export(folder, self.mlm, self.tokenizer, replace(self.settings, weights=weights), frozen)


def _identity(model: str, path: str, revision: str | None, own: Sparse) -> str:
    """Changes with the weights, of both parts where queries have their own."""
    if own.queries is None or not Path(path).is_dir():
        return identity(model, revision)
    return f"{Path(path).name}@{digest([identity(f'{path}/{part}') for part in (own.place, own.queries)])[:12]}"
