"""Negatives looked up again before a stage, with the model as it is then."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from uar.collections import Collection
from uar.labels import Example, Pair, Stage
from uar.labels.example_columns import Examples
from uar.labels.examples import example_of
from uar.retrievers.ranker import Ranker
from uar.retrievers.session_ranker import searching
from uar.retrievers.vector_index import ExactSearch
from uar.storage.files import digest
from uar.training.shared_pools import SharedPools

log = logging.getLogger(__name__)


def with_mined_negatives(
    stage: Stage,
    collection: Collection,
    retriever: Ranker,
    path: Path,
    state: object,
    open_search: Callable[[], ExactSearch] = ExactSearch,
) -> Stage:
    """The stage with the passages of `stage.candidates` as negatives, those of its positives and ignored passages aside.
    `open_search`: makes the settings that they are searched with.

    Process 0 looks them up and keeps the pools in `path`, from where the others and a resumed stage read them; `state`: what
    tells these pools, and the model of then, from others. Utilities that are known stay.
    """
    if stage.candidates is None:
        return stage
    source = replace(stage.candidates, include_positive=False, shuffle=False).ranked_by(retriever)

    def look_up(query_ids: Sequence[str]) -> dict[str, list[str]]:
        log.info("Stage %s: negatives of %d queries are looked up again", stage.name, len(query_ids))
        with searching(open_search):
            return source.pools(collection, query_ids)

    key = digest(collection.hash, state)
    pools = SharedPools(path, key, collection, look_up, resume=True)([e.query_id for e in stage.examples])

    def mined(example: Example) -> Example:
        known = {p.doc_id: p for p in example.pairs()}
        spared = {*example.positives, *example.ignored}
        negatives = [known.get(d) or Pair(d, 0, "mined", None) for d in pools[example.query_id] if d not in spared]
        positives = [known[d] for d in example.positives]
        return example_of(example.query_id, positives + negatives, example.source, example.ignored, example.weight)

    return replace(stage, examples=Examples.of(map(mined, stage.examples), collection.corpus))
