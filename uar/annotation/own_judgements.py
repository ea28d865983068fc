"""Judgements that an annotator has without being asked, such as those of a file, as columns over a collection."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from uar.annotation.conclusions import BLOCK, judged_batch
from uar.collections import Corpus
from uar.pools.stored_pools import PoolTable
from uar.storage.copies import first_of_equal, first_of_hashes
from uar.storage.segments import places_of, ranks_of


@dataclass(frozen=True)
class OwnJudgements:
    """`pools`: passages by question, in rank order; label, grade, score: of each row of `pools`, nan where there is none."""

    pools: PoolTable
    label: np.ndarray
    grade: np.ndarray
    score: np.ndarray

    def batches(self, corpus: Corpus, query_ids: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As `Conclusions` keeps them. Passages of equal text share what the best ranked of them got."""
        for start in range(0, len(query_ids), BLOCK):
            block = query_ids[start : start + BLOCK]
            chosen = self.pools.places(block)
            ends, places = places_of(self.pools.ends, chosen)
            sizes, rows = np.diff(ends), self.pools.rows[places]
            best = places[_best_of_equal(corpus, np.repeat(np.arange(len(block)), sizes), rows)]
            score = self.score[best]
            columns = {
                "row": pa.array(rows),
                "label": pa.array(self.label[best]),
                "grade": pa.array(self.grade[best]),
                "score": pa.array(score, mask=np.isnan(score)),
                "rank": pa.array(ranks_of(sizes)),
            }
            yield judged_batch(block, self.pools.hashes[chosen], ends, columns)


def _best_of_equal(corpus: Corpus, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(pairs,) the place of the first pair of the same question whose passage has the same text. Texts are read only where
    their lengths are equal."""
    first = first_of_hashes(query << 32 | corpus.text_lengths()[rows])
    maybe = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
    texts = corpus.texts(rows[maybe].tolist())
    contents = (b"%d %b" % (at, text.encode("utf-8", "surrogatepass")) for at, text in zip(query[maybe], texts, strict=True))
    best = np.arange(len(rows))
    best[maybe] = maybe[first_of_equal(contents)]
    return best
