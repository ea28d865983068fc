"""The judgements where an annotator and people are furthest apart, to be read by a person."""

from typing import NamedTuple

import numpy as np

from uar.annotation.judgement import Judged
from uar.annotation.quality.pairs import Pairs, human_pairs
from uar.collections import Collection


class Disagreement(NamedTuple):
    """A row of the table; its field names are the columns. `kind`: false positive or missed positive."""

    query_id: str
    query: str
    doc_id: str
    passage: str
    human_grade: int
    grade: int
    label: int
    score: float | None
    rank: int
    kind: str


def worst_disagreements(collection: Collection, judged: Judged, limit: int = 100) -> list[Disagreement]:
    """Up to `limit` pairs that people judged and whose label differs: half false positives, half missed positives, or more
    of one kind where the other has fewer; each kind from the worst on. Worse is a larger difference of the grades, then a
    false positive nearer to the top of its pool or a missed one nearer to its end, then query and passage id."""
    pairs = human_pairs(collection, judged)
    sizes = pairs.per_query(np.ones(len(pairs.doc_ids)))[pairs.query]
    depth = (pairs.rank - 1) / np.maximum(sizes - 1, 1)
    false = _worst(pairs, (pairs.label > 0) & (pairs.other_label == 0), depth)
    missed = _worst(pairs, (pairs.label == 0) & (pairs.other_label > 0), -depth)
    half = limit // 2
    kept = false[: max(limit - len(missed), limit - half)] + missed[: max(limit - len(false), half)]
    texts = list(collection.corpus.texts(collection.corpus.rows([pairs.doc_ids[at] for at in kept])))
    scores = {(q, j.doc_id): j.score for q in {pairs.query_ids[pairs.query[at]] for at in kept} for j in judged[q]}
    found = []
    for at, text in zip(kept, texts, strict=True):
        query_id, doc_id = pairs.query_ids[pairs.query[at]], pairs.doc_ids[at]
        found.append(
            Disagreement(
                query_id,
                collection.queries[query_id].text,
                doc_id,
                text,
                int(pairs.other_grade[at]),
                int(pairs.grade[at]),
                int(pairs.label[at]),
                scores[query_id, doc_id],
                int(pairs.rank[at]),
                "false positive" if pairs.label[at] else "missed positive",
            )
        )
    return found


def _worst(pairs: Pairs, which: np.ndarray, depth: np.ndarray) -> list[int]:
    """Places of the pairs that `which` marks, worst first; a small `depth` is worse."""
    difference = np.abs(pairs.grade - pairs.other_grade)
    places = [int(at) for at in np.flatnonzero(which & pairs.known)]
    return sorted(places, key=lambda at: (-difference[at], depth[at], pairs.query_ids[pairs.query[at]], pairs.doc_ids[at]))
