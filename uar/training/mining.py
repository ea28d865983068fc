"""Negatives looked up again before a stage, with the model as it is then."""

import logging
from dataclasses import replace
from pathlib import Path

from uar.candidates import DensePool, write_pools
from uar.collections import Collection
from uar.collections.folder import read_candidates
from uar.labels import Pair, Stage
from uar.labels.source import example_of
from uar.retrievers.bi_encoder import BiEncoder

log = logging.getLogger(__name__)


def with_mined_negatives(stage: Stage, collection: Collection, retriever: BiEncoder, path: Path) -> Stage:
    """The stage with the passages of `stage.candidates` as negatives, those of its positives and ignored passages aside.

    The pools are kept in `path`, and read from there where they are: a resumed stage keeps its negatives. Utilities that are
    known stay.
    """
    source = stage.candidates
    if source is None:
        return stage
    if isinstance(source, DensePool):
        source = replace(source, retriever=lambda: retriever)
    if not path.is_file():
        log.info("Stage %s: negatives of %d queries are looked up again", stage.name, len(stage.examples))
        source = replace(source, include_positive=False, shuffle=False)
        write_pools(path, source.pools(collection, [e.query_id for e in stage.examples]))
    pools = read_candidates(path, collection.queries, collection.corpus)
    examples = []
    for example in stage.examples:
        known = {p.doc_id: p for p in example.pairs()}
        spared = {*example.positives, *example.ignored}
        negatives = [known.get(d) or Pair(d, 0, "mined", None) for d in pools[example.query_id] if d not in spared]
        positives = [known[d] for d in example.positives]
        examples.append(example_of(example.query_id, positives + negatives, example.source, example.ignored))
    return replace(stage, examples=examples)
