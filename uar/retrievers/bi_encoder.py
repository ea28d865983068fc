"""A dense retriever: one transformer for queries and passages, pooled and normalised, in sentence-transformers' format."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from uar.collections import Collection
from uar.collections.tokens import Tokens, corpus_tokens, query_tokens
from uar.errors import UserError
from uar.files import read_json, write_json
from uar.models import identity, locate, without_bars

POOLINGS = ("mean", "cls", "lasttoken")


class BiEncoder(nn.Module):
    """Encodes token ids to vectors.

    `layers`: keep the first so many layers. `pooling`, `normalize` and the prefixes default to what the model folder's own
    sentence-transformers files say. `dropout`: in place of the model's own, None keeps it. `scale`: inverse temperature of
    the training scores. `token_budget`: tokens, padding included, of one forward pass; texts are sorted by length first, so
    that little is padded.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        layers: int | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        query_length: int = 64,
        passage_length: int = 256,
        dropout: float | None = None,
        scale: float = 20.0,
        token_budget: int = 2048,
    ) -> None:
        super().__init__()
        without_bars()
        path = locate(model)
        own = _own_settings(Path(path))
        try:
            config = AutoConfig.from_pretrained(path, revision=revision)
            if layers is not None:
                config.num_hidden_layers = _checked_layers(layers, config.num_hidden_layers)
            if dropout is not None:
                _set_dropout(config, dropout)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision)
            self.encoder: Any = AutoModel.from_pretrained(path, revision=revision, config=config, dtype=torch.float32)
        except OSError as error:
            raise UserError(f"retriever.model={model}: cannot be loaded ({str(error).splitlines()[0]})") from error
        if self.tokenizer.pad_token_id is None:
            raise UserError(f"retriever.model={model}: its tokenizer has no pad token; choose a model that has one")
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler.requires_grad_(False)  # its output is not used
        self.pooling = pooling or own.get("pooling", "mean")
        if self.pooling not in POOLINGS:
            raise UserError(f"retriever.pooling={self.pooling!r}; allowed: {', '.join(POOLINGS)}")
        self.normalize = own.get("normalize", False) if normalize is None else normalize
        self.query_prefix = own.get("query", "") if query_prefix is None else query_prefix
        self.passage_prefix = own.get("document", "") if passage_prefix is None else passage_prefix
        self.query_length, self.passage_length = query_length, passage_length
        self.scale, self.token_budget = scale, token_budget
        self.name = identity(model, revision) + (f"-l{layers}" if layers else "")

    @property
    def dim(self) -> int:
        return int(self.encoder.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def passage_tokens(self, collection: Collection) -> Tokens:
        """Token ids of every passage, by corpus row, made once."""
        return corpus_tokens(collection, self.tokenizer, self.passage_length, self.passage_prefix)

    def query_tokens(self, collection: Collection) -> Tokens:
        """Token ids of the split's queries, by `collection.query_rows`, made once."""
        return query_tokens(collection, self.tokenizer, self.query_length, self.query_prefix)

    def forward(self, texts: Sequence[np.ndarray]) -> torch.Tensor:
        """(texts, dim) fp32 vectors of token id arrays, in the order given."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        chunks = [self._embed([texts[i] for i in chunk]) for chunk in self._chunks(order, texts)]
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order, dtype=torch.long)] = torch.arange(len(order))
        return torch.cat(chunks)[back.to(chunks[0].device)]

    def _chunks(self, order: Sequence[int], texts: Sequence[np.ndarray]) -> Iterator[list[int]]:
        chunk: list[int] = []
        for index in order:
            if chunk and (len(chunk) + 1) * len(texts[chunk[0]]) > self.token_budget:
                yield chunk
                chunk = []
            chunk.append(index)
        if chunk:
            yield chunk

    def _embed(self, texts: Sequence[np.ndarray]) -> torch.Tensor:
        longest = len(texts[0])
        ids = np.full((len(texts), longest), self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(texts), longest), dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        kept = torch.from_numpy(mask).to(self.device)
        hidden = self.encoder(input_ids=torch.from_numpy(ids).to(self.device), attention_mask=kept).last_hidden_state
        vectors = self._pool(hidden, kept).float()
        return nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def _pool(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "lasttoken":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    def save(self, folder: Path) -> None:
        """A folder that `SentenceTransformer(folder)` and `BiEncoder(str(folder))` load."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": self.passage_length, "do_lower_case": False})
        modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
        pooling = {f"pooling_mode_{file}": mode == self.pooling for mode, file in modes.items()}
        write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": self.dim, **pooling})
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if self.normalize else [])
        write_json(
            folder / "modules.json",
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for i, (path, kind) in enumerate(modules)
            ],
        )
        if self.normalize:
            (folder / "2_Normalize").mkdir(exist_ok=True)
        write_json(
            folder / "config_sentence_transformers.json",
            {
                "prompts": {"query": self.query_prefix, "document": self.passage_prefix},
                "default_prompt_name": None,
                "similarity_fn_name": "cosine" if self.normalize else "dot",
            },
        )


def _own_settings(folder: Path) -> dict[str, Any]:
    """Pooling, normalisation and prompts that a sentence-transformers folder declares."""
    found: dict[str, Any] = {}
    pooling, modules, prompts = (
        folder / n for n in ("1_Pooling/config.json", "modules.json", "config_sentence_transformers.json")
    )
    if pooling.is_file():
        modes = read_json(pooling)
        names = {
            "pooling_mode_cls_token": "cls",
            "pooling_mode_mean_tokens": "mean",
            "pooling_mode_lasttoken": "lasttoken",
        }
        chosen = [short for key, short in names.items() if modes.get(key)] or [modes.get("pooling_mode", "mean")]
        found["pooling"] = chosen[0]
    if modules.is_file():
        found["normalize"] = any(m["type"].endswith("Normalize") for m in read_json(modules))
    if prompts.is_file():
        found.update(read_json(prompts).get("prompts") or {})
    return found


def _checked_layers(layers: int, there: int) -> int:
    if not 1 <= layers <= there:
        raise UserError(f"retriever.layers={layers}: the model has {there} layers; give 1 to {there}")
    return layers


def _set_dropout(config: Any, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise UserError(f"retriever.dropout={dropout}: a number from 0 to below 1 is needed")
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, int | float) and "classifier" not in name:
            setattr(config, name, dropout)
