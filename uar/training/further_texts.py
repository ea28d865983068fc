"""Texts that are encoded as queries beside those of a batch, since a further term of the loss looks at their scores."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uar.collections import Collection, Query
from uar.collections.token_ids import Tokens
from uar.errors import UserError
from uar.expansion.variants import Variants
from uar.labels import Stage
from uar.retrievers.trainable import Trainable
from uar.storage.files import digest, write_jsonl
from uar.storage.locks import alone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FurtherTexts:
    """`tokens`: of all texts; `places`: by query id, the first of its `variants` rows."""

    tokens: Tokens
    places: Mapping[str, int]
    variants: int
    hash: str

    def of(self, query_ids: Sequence[str]) -> list[np.ndarray]:
        """Token ids of the first variant of each query, then of the second, and so on."""
        return [self.tokens[self.places[q] + number] for number in range(self.variants) for q in query_ids]


def further_texts(
    collection: Collection,
    stages: Sequence[Stage],
    variants: Variants,
    number: int,
    retriever: Trainable,
    folder: Path,
) -> FurtherTexts:
    """`number` variants of each query of the stages, also as `variants.jsonl` in the run folder."""
    if number < 1:
        raise UserError(f"training.variants={number}: at least 1 is needed for training.invariance")
    query_ids = list(dict.fromkeys(example.query_id for stage in stages for example in stage.examples))
    with alone(folder / "variants.lock"):  # the other processes of a run take from the store what the first one asked
        texts = variants.texts(collection, query_ids, number, folder)
    if rank_zero_only.rank == 0:
        write_jsonl(folder / "variants.jsonl", ({"query_id": q, "variants": own} for q, own in texts.items()))
    same = sum(text == collection.queries[q].text for q, own in texts.items() for text in own)
    log.info("%d variants of %d questions, %d of them the question itself", number * len(texts), len(texts), same)
    names = {f"{q} {at}": Query(f"{q} {at}", text) for q, own in texts.items() for at, text in enumerate(own)}
    tokens = retriever.query_tokens(replace(collection, queries=names))
    places = {q: at * number for at, q in enumerate(texts)}
    return FurtherTexts(tokens, places, number, digest(list(texts.items())))
