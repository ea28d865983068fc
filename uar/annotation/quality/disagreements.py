"""The judgements where an annotator and people are furthest apart, to be read by a person."""

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from uar.annotation.judged_blocks import of_queries
from uar.annotation.judgement import Judged, Judgement
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
    judged = of_queries(judged, [q for q in judged if q in collection.qrels])
    pairs = human_pairs(collection, judged)
    starts = np.searchsorted(pairs.query, np.arange(len(pairs.query_ids)))
    depth = (pairs.rank - 1) / np.maximum(pairs.per_query(np.ones(len(pairs.query)))[pairs.query] - 1, 1)

    def judgement(at: int) -> Judgement:
        query = pairs.query[at]
        return judged[pairs.query_ids[query]][at - starts[query]]

    def worst(which: np.ndarray, depth: np.ndarray) -> list[int]:
        """Up to `limit` places of the pairs that `which` marks, worst first; a small `depth` is worse."""
        places = np.flatnonzero(which & pairs.known)
        difference = -np.abs(pairs.grade[places].astype(np.int64) - pairs.other_grade[places])
        order = np.lexsort((depth[places], difference))
        keys = list(zip(difference[order].tolist(), depth[places[order]].tolist(), strict=True))
        last = bisect_right(keys, keys[limit - 1]) if len(keys) > limit else len(keys)  # with all that are as bad as the last
        found = [(*key, pairs.query_ids[pairs.query[at]], judgement(at).doc_id, at)
                 for key, at in zip(keys[:last], places[order[:last]].tolist(), strict=True)]  # fmt: skip
        return [at for *_, at in sorted(found)][:limit]

    false = worst((pairs.label > 0) & (pairs.other_label == 0), depth)
    missed = worst((pairs.label == 0) & (pairs.other_label > 0), -depth)
    half = limit // 2
    kept = false[: max(limit - len(missed), limit - half)] + missed[: max(limit - len(false), half)]
    return [_row(collection, pairs, at, judgement(at)) for at in kept]


def _row(collection: Collection, pairs: Pairs, at: int, judgement: Judgement) -> Disagreement:
    query_id = pairs.query_ids[pairs.query[at]]
    return Disagreement(
        query_id,
        collection.queries[query_id].text,
        judgement.doc_id,
        collection.corpus.text(collection.corpus.row(judgement.doc_id)),
        int(pairs.other_grade[at]),
        judgement.grade,
        judgement.label,
        judgement.score,
        judgement.rank,
        "false positive" if judgement.label else "missed positive",
    )
