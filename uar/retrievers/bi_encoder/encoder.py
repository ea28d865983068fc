"""A dense retriever: transformers for queries and passages, one or two, pooled and normalised."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from uar.collections import Collection
from uar.collections.token_ids import Tokens, corpus_tokens, query_tokens
from uar.errors import UserError
from uar.machine.model_files import identity, locate
from uar.retrievers.bi_encoder.encoder_settings import Published, read_published
from uar.retrievers.bi_encoder.export import export
from uar.retrievers.bi_encoder.head import load_head, out_features
from uar.retrievers.bi_encoder.pooling import POOLINGS, pool
from uar.retrievers.dense import DenseEncoder
from uar.retrievers.kind import Kind
from uar.retrievers.token_batches import TokenBatches
from uar.retrievers.trainable import Trainable, suited_rate
from uar.retrievers.transformer.dropout import use_fast_dropout
from uar.retrievers.transformer.fast_attention import hidden_states, use_fast_attention
from uar.retrievers.transformer.four_bit import FOUR_BIT, quantization, settle
from uar.retrievers.transformer.loading import (
    append_eos_token,
    check_alike,
    chosen,
    is_causal,
    load_encoder,
    load_tokenizer,
    loading,
    use_gradient_checkpointing,
    with_room,
)
from uar.retrievers.transformer.lora import add_lora
from uar.storage.files import digest

log = logging.getLogger(__name__)
ROLES = ("query", "passage")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, FOUR_BIT: torch.bfloat16}
COSINE_SCALE = 20.0  # of sentence-transformers' losses: a temperature of 0.05
OF_ADAPTERS = {"lora_alpha": None, "lora_dropout": 0.0, "lora_targets": "all-linear"}  # options and their defaults
HIGHEST_SCALE = 100.0  # as in CLIP, arXiv 2103.00020


class BiEncoder(DenseEncoder):
    """Encodes token ids to vectors.

    `tied`: queries and passages share the encoder; a model folder with two encoders is never tied. `layers`: keep the first
    so many layers. `pooling`, `normalize`, the prefixes and the lengths default to what the model's own files say, else mean
    (of a decoder lasttoken), false, none, and 64 and 256 tokens; dense layers after pooling are the model's own. `append_eos`:
    end every text with the end-of-text token; None does so for lasttoken where the tokenizer has one, unless the model's files
    say lasttoken: such a model was trained on what its tokenizer makes. `dropout`: in place of the model's own, None keeps it.

    `scale`: inverse temperature of the training scores; None is 20 for normalised vectors, whose scores lie between -1 and 1,
    and 1 for others. `learn_scale` starts there and learns its logarithm.
    `lora_rank`: learn adapters of this rank on `lora_targets` (names of layers, or all-linear) in place of the weights;
    `lora_alpha` None is twice the rank. `gradient_checkpointing`: keep one activation a layer and compute the rest again.
    `compile`: through torch.compile. `token_budget`: tokens, padding included, of one forward pass; texts are sorted by
    length first, so that little is padded. `dtype`: of the weights, one of DTYPES; adapters and what follows the pooling are
    in fp32 nevertheless, and with bf16 and 4bit the transformer computes in bf16 whatever the precision of the run. Those of
    linear layers alone have four bits with 4bit, which is for adapters.
    """

    kind = Kind(
        "dense retriever",
        "SentenceTransformer",
        "sentence-similarity",
        ("sentence-similarity", "feature-extraction", "dense-retrieval"),
    )

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        layers: int | None = None,
        tied: bool = True,
        pooling: str | None = None,
        normalize: bool | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        query_length: int | None = None,
        passage_length: int | None = None,
        append_eos: bool | None = None,
        dropout: float | None = None,
        scale: float | None = None,
        learn_scale: bool = False,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        lora_targets: str | Sequence[str] = "all-linear",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        token_budget: int | None = None,
        dtype: str = "fp32",
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise UserError(f"retriever.dtype={dtype}; allowed: {', '.join(DTYPES)}")
        self._four_bit = dtype == FOUR_BIT
        if self._four_bit and lora_rank is None:
            raise UserError(f"retriever.dtype={dtype}: such weights do not learn; give retriever.lora_rank=16")
        weights = DTYPES[dtype], quantization() if self._four_bit else None
        with loading(model) as path:
            own = read_published(model, path, revision)
            self.encoder: Any = load_encoder(model, path, revision, own.passages, layers, dropout, *weights)
            self.query_encoder: Any = None
            if not tied or own.queries is not None:
                folder = own.passages if own.queries is None else own.queries
                self.query_encoder = load_encoder(model, path, revision, folder, layers, dropout, *weights)
            self.tokenizer: Any = load_tokenizer(model, path, revision, own.passages, own.do_lower_case)
            if own.queries is not None:
                check_alike(self.tokenizer, load_tokenizer(model, path, revision, own.queries), model)
            self.head = load_head(model, path, revision, own.dense)
        self.learning_rate = suited_rate(lora_rank is not None, own.pooling is not None, layers)
        pooling = pooling or own.pooling or ("lasttoken" if is_causal(self.encoder) else "mean")
        if not set(POOLINGS) >= set(pooling.split("+")):
            raise UserError(f"retriever.pooling={pooling!r}; allowed: {', '.join(POOLINGS)}, or several joined by +")
        untrained = pooling == "lasttoken" != own.pooling  # which no files say how to end a text for
        if append_eos or (append_eos is None and untrained and self.tokenizer.eos_token_id is not None):
            append_eos_token(self.tokenizer, model)
        self._pooling = pooling
        own = replace(own, pooling=pooling, normalize=bool(own.normalize) if normalize is None else normalize)
        self.settings = chosen(own, self.encoder.config, query_prefix, passage_prefix, query_length, passage_length)
        self.batches = TokenBatches(token_budget, int(self.tokenizer.pad_token_id))
        self._scale = _checked_scale(scale, self.unit, learn_scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self._scale))) if learn_scale else None
        self.head.requires_grad_(lora_rank is None)
        for encoder in self._encoders():
            if lora_rank is not None:
                add_lora(encoder, lora_rank, lora_alpha, lora_dropout, lora_targets)
            if self._four_bit:
                settle(encoder)
            if gradient_checkpointing:
                use_gradient_checkpointing(encoder, model)
            if compile:
                encoder.compile(dynamic=True)  # in place, so that names in checkpoints stay
            else:
                use_fast_dropout(encoder)
                use_fast_attention(encoder)
        self.name = _name(model, revision, own) + (f"-l{layers}" if layers else "")

    @property
    def tied(self) -> bool:
        return self.query_encoder is None

    @property
    def dim(self) -> int:
        return out_features(self.head, int(self.encoder.config.hidden_size) * len(self._pooling.split("+")))

    @property
    def unit(self) -> bool:
        return bool(self.settings.normalize)

    @property
    def vector_settings(self) -> tuple[object, ...]:
        return self._pooling, self.unit, *([self.name] if self._four_bit else [])  # scales are no weights of the module

    @property
    def scale(self) -> float | torch.Tensor:
        """What training multiplies scores by; a learned one is cut to HIGHEST_SCALE first."""
        if self.log_scale is None:
            return self._scale
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(HIGHEST_SCALE))
        return self.log_scale.exp()

    def passage_tokens(self, collection: Collection) -> Tokens:
        return corpus_tokens(collection, self.tokenizer, self.settings.passage_length, self.settings.passage_prefix)

    def query_tokens(self, collection: Collection) -> Tokens:
        return query_tokens(collection, self.tokenizer, self.settings.query_length, self.settings.query_prefix)

    def forward(self, texts: Sequence[np.ndarray], role: str = "passage", cached: bool = False) -> torch.Tensor:
        """(texts, dim) fp32 vectors of token id arrays, in the order given. `role`: query or passage. `cached`: see
        `TokenBatches.each`."""
        if role not in ROLES:
            raise ValueError(f"role={role!r}; allowed: {', '.join(ROLES)}")
        encoder = self.encoder if role == "passage" or self.query_encoder is None else self.query_encoder
        return self.batches.each(texts, lambda ids, mask, _: self._embed(encoder, ids, mask), self.device, cached)

    @property
    def lengths(self) -> dict[str, int]:
        return {"query_length": self.settings.query_length, "passage_length": self.settings.passage_length}

    def with_room(self, query_length: int | None) -> "BiEncoder":
        return with_room(self, query_length, self.encoder.config)

    @property
    def reading(self) -> str:
        own = self.settings
        texts = f"queries of up to {own.query_length} tokens and passages of up to {own.passage_length}"
        how = f"pooling {own.pooling}, {'cosine' if own.normalize else 'dot product'}"
        return f"{texts}; {how}, before queries {own.query_prefix!r}, before passages {own.passage_prefix!r}"

    @classmethod
    def check_training(cls, options: Mapping[str, Any]) -> None:
        dtype = options.get("dtype", "fp32")
        if dtype != "fp32" and options.get("lora_rank") is None:
            raise UserError(
                f"retriever.dtype={dtype}: small steps of weights are lost in it; give retriever.lora_rank=16, whose adapters "
                "learn in fp32, or dtype=fp32"
            )
        idle = [f"retriever.{n}={options[n]}" for n, value in OF_ADAPTERS.items() if options.get(n, value) != value]
        if idle and options.get("lora_rank") is None:
            line = "%s: no effect, since all weights learn and no adapters; give retriever.lora_rank=16, or leave it out"
            log.warning(line, ", ".join(idle))

    def restore(self, saved: Callable[..., Trainable]) -> None:
        if not self._four_bit:
            super().restore(saved)
            return
        for name, part in saved(dtype="bf16", lora_rank=None).named_children():  # whole weights, adapters merged into them
            setattr(self, name, part)

    def save(self, folder: Path) -> None:
        """A folder that `SentenceTransformer(folder)` and `BiEncoder(str(folder))` load."""
        settings = replace(self.settings, dimensions=tuple(self.dimensions or ()))
        export(folder, settings, self.encoder, self.query_encoder, self.tokenizer, self.head)

    def _encoders(self) -> list[Any]:
        return [self.encoder] if self.query_encoder is None else [self.encoder, self.query_encoder]

    def _embed(self, encoder: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        half = encoder.dtype == torch.bfloat16
        with torch.autocast(ids.device.type, torch.bfloat16) if half else nullcontext():
            states = hidden_states(encoder, ids, mask)
        vectors = self.head(pool(states.float() if half else states, mask, self._pooling)).float()
        return nn.functional.normalize(vectors, dim=-1) if self.unit else vectors


def _name(model: str, revision: str | None, own: Published) -> str:
    """Changes with the weights, of both encoders where there are two."""
    path = locate(model)
    if own.queries is None or not Path(path).is_dir():
        return identity(model, revision)
    return f"{Path(path).name}@{digest([identity(f'{path}/{part}') for part in (own.passages, own.queries)])[:12]}"


def _checked_scale(scale: float | None, normalised: bool, learned: bool) -> float:
    if scale is None:
        return COSINE_SCALE if normalised else 1.0
    if scale <= 0 or (learned and scale > HIGHEST_SCALE):
        raise UserError(f"retriever.scale={scale}: above 0 is needed, and at most {HIGHEST_SCALE:.0f} where it is learned")
    return scale
