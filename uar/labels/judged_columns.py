"""Judgements of many questions as columns, whatever they are kept in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from uar.annotation.concluded_judgements import Judgements
from uar.annotation.judgement import Judged, Judgement
from uar.collections import Collection, Corpus
from uar.storage.segments import ends_of

BLOCK = 4_096  # questions whose judgements are read at once, where they are not in columns


@dataclass(frozen=True)
class JudgedBlock:
    """query: (pairs,) place in `query_ids`; rows: of the corpus; label, grade; score: nan where there is none; by: (pairs,)
    place in a list of those who said so."""

    query_ids: Sequence[str]
    query: np.ndarray
    rows: np.ndarray
    label: np.ndarray
    grade: np.ndarray
    score: np.ndarray
    by: np.ndarray


def judged_blocks(judged: Judged, query_ids: Sequence[str], corpus: Corpus, who: dict[str, int]) -> Iterator[JudgedBlock]:
    """The judgements of the questions in their order. `who` grows by names of those who said so."""
    if isinstance(judged, Judgements):
        nobody = who.setdefault("", len(who))
        for block, batch in judged.conclusions.taken(query_ids, ("row", "label", "grade", "score")):
            sizes = np.diff(batch["row"].offsets.to_numpy())
            rows, label, grade, score = (
                batch[name].flatten().to_numpy(zero_copy_only=False) for name in ("row", "label", "grade", "score")
            )
            query = np.repeat(np.arange(len(block)), sizes)
            yield JudgedBlock(block, query, rows, label, grade, score.astype(np.float64), np.full(len(rows), nobody))
        return
    for start in range(0, len(query_ids), BLOCK):
        block = query_ids[start : start + BLOCK]
        flat = [j for query_id in block for j in judged[query_id]]
        yield JudgedBlock(
            block,
            np.repeat(np.arange(len(block)), [len(judged[query_id]) for query_id in block]),
            np.array(corpus.rows([j.doc_id for j in flat]), np.int64),
            np.array([bool(j.label) for j in flat], np.int8),
            np.array([j.grade for j in flat], np.int64),
            np.array([np.nan if j.score is None else j.score for j in flat], np.float64),
            np.array([who.setdefault(j.by, len(who)) for j in flat], np.int64),
        )


def are_graded(judged: Judged, query_ids: Sequence[str]) -> bool:
    """Whether the grades say more than yes and no."""
    found: set[int] = set()
    if isinstance(judged, Judgements):
        for _, batch in judged.conclusions.taken(query_ids, ("grade",)):
            found.update(np.unique(batch["grade"].flatten().to_numpy()).tolist())
    else:
        found.update(j.grade for query_id in query_ids for j in judged[query_id])
    return len(found) > 2


def positives_by_people(collection: Collection, query_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ends a query, and corpus rows, of the passages that people judged positive, as `Collection.trainable` has them."""
    positives = [collection.positives(query_id) for query_id in query_ids]
    rows = collection.corpus.find([d for of_query in positives for d in of_query])
    query = np.repeat(np.arange(len(positives)), [len(of_query) for of_query in positives])
    return ends_of(np.bincount(query[rows >= 0], minlength=len(positives))), rows[rows >= 0]


def utility_of(judgement: Judgement, graded: bool) -> float | None:
    """The score, else the grade where grades say more than yes and no."""
    return judgement.score if judgement.score is not None else float(judgement.grade) if graded else None
