"""Retrievers that can be trained."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from uar.collections import Collection
from uar.collections.token_ids import Tokens
from uar.retrievers.kind import Kind
from uar.retrievers.ranker import Search
from uar.retrievers.search_options import INDEX, SCORING, VECTORS
from uar.retrievers.session_ranker import SessionRanker
from uar.retrievers.weights import weights_hash
from uar.storage.files import digest

Exchange = Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
NEW, PRETRAINED, FIT = 1e-4, 5e-5, 1e-5  # learning rates


@dataclass(frozen=True)
class Texts:
    """Those of a training batch. queries, passages: token ids; rows: (passages,) corpus rows, each once; own: (queries,
    passages) true where a passage was chosen for that query, and not only for another of the batch; others_teach: whether the
    loss learns from other pairs than these too, as one of utilities does not; most: passages that any process brings at
    most."""

    queries: Sequence[np.ndarray]
    passages: Sequence[np.ndarray]
    rows: torch.Tensor
    own: torch.Tensor
    others_teach: bool = True
    most: int = 0


@dataclass(frozen=True)
class Scored:
    """scores: (queries, passages), finite, not yet multiplied by the retriever's `scale`; rows: (passages,) corpus rows of the
    columns, negative where a column is padding; scored: (queries, passages) false where a pair has no score, and says nothing
    to the loss, None where all have one. views: further scores of the same pairs, the mean of whose losses is then learnt
    from in place of that of `scores`. penalties: by name, what is added to the loss for the representations of the texts of
    all processes, and so alike on all; facts: by name, what is logged besides."""

    scores: torch.Tensor
    rows: torch.Tensor
    scored: torch.Tensor | None = None
    views: tuple[torch.Tensor, ...] = ()
    penalties: Mapping[str, torch.Tensor] = field(default_factory=dict)
    facts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def of(self, queries: slice) -> "Scored":
        """The scores of some of the queries."""
        scored = None if self.scored is None else self.scored[queries]
        return replace(self, scores=self.scores[queries], scored=scored, views=tuple(view[queries] for view in self.views))


def suited_rate(new: bool, trained: bool, layers: int | None) -> float:
    """The learning rate of a model: NEW where layers or adapters are `new`, which a head made of word embeddings is not; FIT
    where its files are those of a `trained` retriever of the kind that it is opened as, whose number of `layers` is not given,
    and which larger steps make forget; else PRETRAINED."""
    return NEW if new else FIT if trained and layers is None else PRETRAINED


def first_places(rows: torch.Tensor) -> torch.Tensor:
    """(passages,) true where a corpus row stands for the first time; padding (negative rows) never."""
    order = torch.argsort(rows, stable=True)
    ordered = rows[order]
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = torch.empty_like(new)
    first[order] = new
    return first & (rows >= 0)


class Trainable(nn.Module, SessionRanker):
    """A ranker that learns. Training learns the parameters that require a gradient; its loss sees `scale` · `batch_scores`.

    `is_baseline`: whether its order before training says anything, which that of new weights does not. `learning_rate`: what
    training takes where no other one is given, see `suited_rate`. `penalty_warmup`: share
    of the first stage's steps in which the factor of `Scored.penalties` rises from 0 to 1, with the square of the step.
    """

    kind: ClassVar[Kind] = Kind("retriever")
    is_baseline = True
    learning_rate = PRETRAINED
    penalty_warmup = 0.0

    @classmethod
    def reads(cls, path: str, revision: str | None) -> bool:
        """Whether the files of a model, a folder or an id on the hub, say that it is of this kind; false where they say none.
        `open_model` asks the kinds that conf/retriever names, and the same folder of one's own."""
        return False

    @classmethod
    def resembles(cls, path: str, revision: str | None) -> bool:
        """Whether files that say no kind may be of this one."""
        return False

    @classmethod
    def check_training(cls, options: Mapping[str, Any]) -> None:
        """UserError where one with these options of its config cannot be trained, and a warning of those without effect; asked
        before anything is loaded."""
        return None

    @property
    def reading(self) -> str:
        """What its log tells of how it reads texts; nothing where that is empty."""
        return ""

    @abstractmethod
    def batch_scores(self, texts: Texts, exchange: Exchange, cached: bool = False) -> Scored:
        """Scores of this process' queries for passages of the batch. Whether a query is scored against its own passages or
        against all is the retriever's choice. `exchange`: (passages, …) tensor, their corpus rows and how many any process has
        at most -> those of all processes, with their gradient; called by all processes or by none. `cached`: do not keep
        activations, and compute them again for the gradient (GradCache, arXiv 2101.06983)."""

    @property
    @abstractmethod
    def scale(self) -> float | torch.Tensor:
        """What training multiplies scores by (an inverse temperature)."""

    @abstractmethod
    def passage_tokens(self, collection: Collection) -> Tokens:
        """Token ids of every passage, by corpus row, made once."""

    @abstractmethod
    def query_tokens(self, collection: Collection) -> Tokens:
        """Token ids of the split's queries, by `collection.query_rows`, made once."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """A model folder that `retriever.model=` loads, and the class of sentence-transformers that `kind` names."""

    def restore(self, saved: "Callable[..., Trainable]") -> None:
        """Take over the weights of what `save` wrote. `saved`: opens that as this retriever was made, but for options that it
        is given."""
        self.load_state_dict(saved().state_dict())

    @abstractmethod
    def weights_key(self) -> str:
        """A hash of the weights and of what else changes the scores of token ids."""

    def key(self, collection: Collection) -> str | None:
        return self.key_with(self.weights_key(), collection)

    def key_with(self, weights: str, collection: Collection) -> str | None:
        """As `key`, of a retriever that differs from this one in its weights alone: their `weights_key`."""
        tokens = [self.passage_tokens(collection).key, self.query_tokens(collection).key]
        return digest(type(self).__qualname__, weights, tokens)

    @property
    def search_options(self) -> frozenset[str]:
        return SCORING

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Encoder(Trainable):
    """A ranker that represents a text by numbers and compares two texts by these alone, so that a corpus is encoded once.

    In training all passages of all processes are negatives of a query. As a ranker, it keeps representations of a corpus in
    shards of a session's vectors.

    `dimensions`: training takes the mean of the losses of so many first numbers of the vectors (Matryoshka representation
    learning, arXiv 2205.13147); None is all numbers. `has_first_numbers`: whether some first numbers can be searched alone, as
    those of a sparse vector and of a vector a token cannot.
    """

    dimensions: Sequence[int] | None = None
    has_first_numbers = False

    @abstractmethod
    def forward(self, texts: Sequence[np.ndarray], role: str = "passage", cached: bool = False) -> torch.Tensor:
        """(texts, …) fp32 representations of arrays of token ids, in the order given: one vector, many, or a sparse one of the
        vocabulary's size. Those of passages have one shape in all batches, since processes exchange them. `role`: query or
        passage. `cached`: as in `batch_scores`."""

    def similarity(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        """(queries, passages) scores of representations: inner products, unless a kind compares them otherwise."""
        return queries @ passages.T

    def batch_scores(self, texts: Texts, exchange: Exchange, cached: bool = False) -> Scored:
        queries = self(texts.queries, role="query", cached=cached)
        passages, rows = exchange(self(texts.passages, role="passage", cached=cached), texts.rows, texts.most)
        with torch.autocast(self.device.type, enabled=False):
            views = tuple(
                self.similarity(self.shortened(queries, n), self.shortened(passages, n)) for n in self.dimensions or ()
            )
            regular = self.regularised(queries, passages, rows, exchange)
            return Scored(self.similarity(queries, passages), rows, None, views, *regular)

    def regularised(
        self, queries: torch.Tensor, passages: torch.Tensor, rows: torch.Tensor, exchange: Exchange
    ) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """`Scored.penalties` and `Scored.facts` of the representations of this process' queries and of all processes'
        passages, whose corpus rows are `rows`; none here."""
        return {}, {}

    @property
    def search_options(self) -> frozenset[str]:
        return VECTORS if self.has_first_numbers else INDEX

    @property
    @abstractmethod
    def dim(self) -> int:
        """Numbers of a vector."""

    def check_search(self, search: Search, collection: Collection) -> None:
        search.check(len(collection.corpus), self.dim)

    @property
    def unit(self) -> bool:
        """Whether vectors have length 1."""
        return False

    def shortened(self, vectors: torch.Tensor, dimensions: int) -> torch.Tensor:
        """(…, dimensions) the first numbers of vectors, brought to length 1 again where they had it; what
        `training.dimensions` learns and `search.dimensions` searches."""
        short = vectors[..., :dimensions]
        return nn.functional.normalize(short, dim=-1) if self.unit else short

    def with_room(self, query_length: int | None) -> Self:
        super().with_room(query_length)
        return self

    @property
    def vector_settings(self) -> tuple[object, ...]:
        """What changes the representations besides the weights and the token ids, such as the pooling."""
        return ()

    def weights_key(self) -> str:
        """A hash of the weights and of what else changes the representations."""
        return weights_hash(self, *self.vector_settings)
