"""ColBERT (arXiv 2004.12832, 2112.01488): a vector a token, compared by MaxSim."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from torch import nn

from uar.collections import Collection
from uar.collections.token_ids import Tokens, corpus_tokens, query_tokens
from uar.errors import UserError
from uar.machine.model_files import identity
from uar.retrievers.colbert.max_sim import max_sim
from uar.retrievers.colbert.multi_vector_files import DIM, PUNCTUATION, MultiVector, export, is_multi_vector, read_multi_vector
from uar.retrievers.colbert.multi_vector_ranker import MultiVectorRanker
from uar.retrievers.colbert.residuals import Form
from uar.retrievers.kind import Kind
from uar.retrievers.ranker import Ranker, Search
from uar.retrievers.session import Session
from uar.retrievers.token_batches import TokenBatches
from uar.retrievers.trainable import Encoder, suited_rate
from uar.retrievers.transformer.dropout import use_fast_dropout
from uar.retrievers.transformer.fast_attention import hidden_states, use_fast_attention
from uar.retrievers.transformer.loading import chosen, load_encoder, load_tokenizer, loading, with_room
from uar.storage.files import digest

log = logging.getLogger(__name__)
SEED = 0  # of a new projection, so that a model is the same whenever it is loaded


class ColBERT(Encoder):
    """Encodes token ids to a vector each: the last hidden states through a linear layer, at length 1.

    `layers`: keep the first so many layers. `dim`: numbers of a vector; a model that has such a layer of another size is
    refused. `new_projection`: a model without such a layer gets one, which has to be trained; false refuses it.

    `dim`, `query_length`, `passage_length`, the prefixes, `expand_queries` and `skip_punctuation` default to what the model's
    own files say, else 128, 32 and 180 tokens, none, true and false. `expand_queries`: fill queries up with mask tokens to
    `query_length`, which nothing attends to and which are compared too. `skip_punctuation`: punctuation of passages has no
    vector. `dropout`: in place of the model's own, None keeps it. `scale`: what training multiplies scores by. `index`,
    `bits`, `centroids`, `candidates`, `probes`: see `Form`. `token_budget`: tokens of one forward pass.
    """

    kind = Kind(
        "late-interaction retriever",
        "MultiVectorEncoder",
        "feature-extraction",
        ("multi-vector", "colbert", "late-interaction"),
    )

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        layers: int | None = None,
        dim: int | None = None,
        new_projection: bool = True,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        query_length: int | None = None,
        passage_length: int | None = None,
        expand_queries: bool | None = None,
        skip_punctuation: bool | None = None,
        dropout: float | None = None,
        scale: float = 1.0,
        index: str = "fp16",
        bits: int = 2,
        centroids: int | None = None,
        candidates: int | None = None,
        probes: int = 4,
        token_budget: int | None = None,
    ) -> None:
        super().__init__()
        self._form = Form(index, bits, centroids, candidates, probes)
        if scale <= 0:
            raise UserError(f"retriever.scale={scale}: above 0 is needed")
        with loading(model) as path:
            own = read_multi_vector(model, path, revision)
            if own is None and not new_projection:
                raise UserError(
                    f"retriever.model={model}: it has no layer that makes a vector a token, so it is no multi-vector model; "
                    "train one with python train.py retriever=colbert, or choose one"
                )
            self.learning_rate = suited_rate(own is None, own is not None, layers)
            own = own or MultiVector()
            self.encoder: Any = load_encoder(model, path, revision, "", layers, dropout)
            self.tokenizer: Any = load_tokenizer(model, path, revision, "")
            _keep_whole(self.tokenizer, own.marks, model)
        self.projection = _projection(own.projection, int(self.encoder.config.hidden_size), dim, model)
        self._form.check(self.dim)
        skips = bool(own.skip) if skip_punctuation is None else skip_punctuation
        own = replace(own, projection=None, skip=(own.skip or tuple(PUNCTUATION)) if skips else ())
        self.settings = chosen(
            own, self.encoder.config, query_prefix, passage_prefix, query_length, passage_length, expand=expand_queries
        )
        if self.settings.expand and self.tokenizer.mask_token_id is None:
            raise UserError(f"retriever.expand_queries=true: the tokenizer of {model} has no mask token; set it to false")
        known = {word: self.tokenizer.convert_tokens_to_ids(word) for word in self.settings.skip}
        skipped = [number for number in known.values() if number != self.tokenizer.unk_token_id]
        self._skipped = torch.tensor(sorted(skipped), dtype=torch.long)
        self.batches = TokenBatches(token_budget, int(self.tokenizer.pad_token_id))
        self._scale = scale
        use_fast_dropout(self.encoder)
        use_fast_attention(self.encoder)
        self.name = f"colbert {identity(model, revision)}" + (f"-l{layers}" if layers else "")

    @classmethod
    def reads(cls, path: str, revision: str | None) -> bool:
        return is_multi_vector(path, revision)

    @property
    def dim(self) -> int:
        return self.projection.out_features

    @property
    def unit(self) -> bool:
        return True

    @property
    def scale(self) -> float:
        return self._scale

    @property
    def vector_settings(self) -> tuple[object, ...]:
        return self.settings.query_length, self.settings.expand, self.settings.skip

    def key_with(self, weights: str, collection: Collection) -> str:
        return digest(super().key_with(weights, collection), self._form.facts())

    @property
    def lengths(self) -> dict[str, int]:
        return {"colbert.query_length": self.settings.query_length, "colbert.passage_length": self.settings.passage_length}

    def with_room(self, query_length: int | None) -> "ColBERT":
        """One that fills queries up with mask tokens is as it is where no number is given: more of these would change each
        query's vectors."""
        filled = self.settings.expand and query_length is None
        return self if filled else with_room(self, query_length, self.encoder.config)

    def passage_tokens(self, collection: Collection) -> Tokens:
        return corpus_tokens(collection, self.tokenizer, self.settings.passage_length, self.settings.passage_prefix)

    def query_tokens(self, collection: Collection) -> Tokens:
        return query_tokens(collection, self.tokenizer, self.settings.query_length, self.settings.query_prefix)

    def forward(self, texts: Sequence[np.ndarray], role: str = "passage", cached: bool = False) -> torch.Tensor:
        """(texts, length, dim + 1) fp32: vectors of length 1, and 1 behind each; 0 where there is no vector. The length is
        that of the role, whatever texts there are."""

        def embed(ids: torch.Tensor, mask: torch.Tensor, chunk: list[int]) -> torch.Tensor:
            return self._queries(ids, mask) if role == "query" else self._passages(ids, mask)

        return self.batches.each(texts, embed, self.device, cached)

    def _queries(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length = self.settings.query_length
        if not self.settings.expand:
            return self._vectors(hidden_states(self.encoder, ids, mask), mask.bool(), length)
        missing = (0, length - ids.shape[1])
        mask = nn.functional.pad(mask, missing)
        ids = nn.functional.pad(ids, missing).masked_fill(mask == 0, self.tokenizer.mask_token_id)
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self._vectors(states, torch.ones_like(mask, dtype=torch.bool), length)

    def _passages(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        there = mask.bool() & ~torch.isin(ids, self._skipped.to(ids.device))
        return self._vectors(hidden_states(self.encoder, ids, mask), there, self.settings.passage_length)

    def _vectors(self, states: torch.Tensor, there: torch.Tensor, length: int) -> torch.Tensor:
        vectors = nn.functional.normalize(self.projection(states).float(), dim=-1)
        marked = torch.cat([vectors, torch.ones_like(vectors[..., :1])], dim=-1) * there[..., None]
        return nn.functional.pad(marked, (0, 0, 0, length - marked.shape[1]))

    def similarity(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        return max_sim(queries, passages)

    def check_search(self, search: Search, collection: Collection) -> None:
        if search.shortcut:
            raise UserError(
                f"search of {search.shortcut}: {self.name} has many vectors a text, and an index of its own; leave "
                "search=exact as it is, and set retriever.index and retriever.candidates"
            )

    def opened(self, session: Session, part: str = "") -> Ranker:
        session.place(self)
        return MultiVectorRanker(self, self._form, session, part)

    def save(self, folder: Path) -> None:
        """A folder that `MultiVectorEncoder(folder)` of sentence-transformers and this class load."""
        export(folder, self.settings, self.encoder, self.tokenizer, self.projection)


def _keep_whole(tokenizer: Any, marks: Sequence[str], model: str) -> None:
    """Have the tokenizer take these texts for the tokens that they are. UserError where one is no token."""
    missing = [mark for mark in marks if mark not in tokenizer.get_vocab()]
    if missing:
        raise UserError(f"retriever.model={model}: its tokenizer lacks {', '.join(missing)}, which its files name")
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])


def _projection(own: torch.Tensor | None, hidden: int, given: int | None, model: str) -> nn.Linear:
    dim = given or (DIM if own is None else len(own))
    if own is not None and own.shape != (dim, hidden):
        raise UserError(f"retriever.dim={dim}: the vectors of {model} have {len(own)} numbers; set it to this, or to null")
    layer = nn.Linear(hidden, dim, bias=False)
    if own is None:
        log.warning("%s has no layer that makes a vector a token: one is drawn, which has to be trained", model)
    drawn = torch.randn(dim, hidden, generator=torch.Generator().manual_seed(SEED)) / hidden**0.5
    with torch.no_grad():
        layer.weight.copy_(drawn if own is None else own)
    return layer
