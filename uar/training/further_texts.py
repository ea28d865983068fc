"""Texts that are encoded as queries beside those of a batch, since a further term of the loss looks at their scores."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uar.collections import Collection, Query
from uar.collections.reference import parse
from uar.collections.token_ids import Tokens
from uar.errors import UserError
from uar.expansion.variants import Variants
from uar.labels import Stage
from uar.questions.misleading_file import MISLEADING, read_misleading
from uar.retrievers.trainable import Trainable
from uar.storage.files import digest, write_jsonl
from uar.storage.locks import alone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FurtherTexts:
    """`tokens`: of all texts; `variants`: the rows of each query's, as many for all; `misleading`: the rows of the texts that
    look as if they described a passage, by its id; `hash`: of the texts."""

    tokens: Tokens
    variants: Mapping[str, range]
    misleading: Mapping[str, range]
    hash: str = ""

    def variants_of(self, query_ids: Sequence[str]) -> list[np.ndarray]:
        """Token ids of the first variant of each query, then of the second, and so on."""
        rows = zip(*(self.variants[q] for q in query_ids), strict=True) if self.variants else ()
        return [self.tokens[row] for of_number in rows for row in of_number]

    def misleading_of(self, doc_ids: Sequence[str | None]) -> tuple[list[np.ndarray], list[int]]:
        """Token ids of the misleading texts of each of the passages, and the places of these in `doc_ids`."""
        rows = [(place, row) for place, d in enumerate(doc_ids) if d is not None for row in self.misleading.get(d, ())]
        return [self.tokens[row] for _, row in rows], [place for place, _ in rows]


def variants_of(
    collection: Collection, stages: Sequence[Stage], variants: Variants, number: int, folder: Path
) -> dict[str, list[str]]:
    """`number` variants of each query of the stages, also as `variants.jsonl` in the run folder."""
    if number < 1:
        raise UserError(f"training.variants={number}: at least 1 is needed for training.invariance")
    query_ids = list(dict.fromkeys(example.query_id for stage in stages for example in stage.examples))
    with alone(folder / "variants.lock"):  # the other processes of a run take from the store what the first one asked
        texts = variants.texts(collection, query_ids, number, folder if rank_zero_only.rank == 0 else None)
    if rank_zero_only.rank == 0:
        write_jsonl(folder / "variants.jsonl", ({"query_id": q, "variants": own} for q, own in texts.items()))
    same = sum(text == collection.queries[q].text for q, own in texts.items() for text in own)
    log.info("%d variants of %d questions, %d of them the question itself", number * len(texts), len(texts), same)
    return texts


def misleading_of(collection: Collection) -> dict[str, list[str]]:
    """By passage id, what `questions=describe` wrote. UserError where the folder of the collection has nothing of it."""
    kind, place, _ = parse(collection.reference)
    path = Path(place) / MISLEADING
    if kind == "irds" or not path.is_file():
        raise UserError(
            f"training.misleading: {collection.reference} has no {MISLEADING}, which annotate.py questions=describe writes; "
            "train on such a folder, or set it to 0"
        )
    found = {d: texts for d, texts in read_misleading(path).items() if collection.corpus.row(d) >= 0}
    log.info("%s: %d misleading texts of %d passages", path, sum(map(len, found.values())), len(found))
    return found


def further_texts(
    collection: Collection, variants: Mapping[str, list[str]], misleading: Mapping[str, list[str]], retriever: Trainable
) -> FurtherTexts:
    """Tokenised as queries are."""
    groups = [*variants.items(), *misleading.items()]
    texts = [text for _, own in groups for text in own]
    ends = list(accumulate((len(own) for _, own in groups), initial=0))
    rows = [(name, range(start, end)) for (name, _), start, end in zip(groups, ends, ends[1:], strict=False)]
    tokens = retriever.query_tokens(replace(collection, queries={str(n): Query(str(n), t) for n, t in enumerate(texts)}))
    of_queries, of_passages = dict(rows[: len(variants)]), dict(rows[len(variants) :])
    return FurtherTexts(tokens, of_queries, of_passages, digest([list(of.items()) for of in (variants, misleading)]))
