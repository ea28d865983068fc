"""What several annotators say of the passages of some questions, as numbers that a classifier learns from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uar.annotation.judgement import Judged, Judgement
from uar.collections import Corpus

BLOCK = 4_096  # questions that are read at once
NAMES = ("judged", "label", "place", "score", "score in its pool", "doubt")  # of one annotator
JUDGED, LABEL, PLACE, SCORE = range(4)


@dataclass(frozen=True)
class Features:
    """query: (pairs,) place in `query_ids`; rows: (pairs,) of the corpus; values: (pairs, annotators, len(NAMES)) whether the
    annotator judged the passage, its label, its place in the ranking from 1 (first) down to 0 (last), its score, the score
    less the mean of the pool, its uncertainty; nan where the annotator says nothing of the kind."""

    query_ids: Sequence[str]
    query: np.ndarray
    rows: np.ndarray
    values: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        """(pairs, annotators x len(NAMES))."""
        return self.values.reshape(len(self.values), -1)


def feature_blocks(judged: Sequence[Judged], query_ids: Sequence[str], corpus: Corpus) -> Iterator[Features]:
    """Of all passages that any of the annotators judged, of the questions in their order."""
    for start in range(0, len(query_ids), BLOCK):
        block = query_ids[start : start + BLOCK]
        found = [_of_query([of.get(query_id, ()) for of in judged]) for query_id in block]
        rows = np.array(corpus.rows([d for of_query in found for d in of_query]), np.int64)
        query = np.repeat(np.arange(len(block)), [len(of_query) for of_query in found])
        values = [said for of_query in found for said in of_query.values()]
        yield Features(block, query, rows, np.array(values, np.float64).reshape(len(values), len(judged), len(NAMES)))


def _of_query(said: Sequence[Sequence[Judgement]]) -> Mapping[str, list[list[float]]]:
    """By passage, a row an annotator."""
    nothing = [0.0] + [np.nan] * (len(NAMES) - 1)
    found: dict[str, list[list[float]]] = {}
    for at, judgements in enumerate(said):
        scores = [j.score for j in judgements if j.score is not None]
        mean = float(np.mean(scores)) if scores else np.nan
        for j in judgements:
            score = np.nan if j.score is None else j.score
            doubt = np.nan if j.uncertainty is None else j.uncertainty
            place = 1 - (j.rank - 1) / max(1, len(judgements) - 1)
            row = found.setdefault(j.doc_id, [nothing] * len(said))
            row[at] = [1.0, float(j.label), place, score, score - mean, doubt]
    return found
