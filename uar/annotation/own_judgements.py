"""Judgements that an annotator has without being asked, such as those of a file, as columns over a collection."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from uar.annotation.conclusions import BLOCK, judged_batch
from uar.collections import Corpus
from uar.pools.stored_pools import PoolTable
from uar.storage.copies import first_of_hashes, of_owner
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
            query = np.repeat(np.arange(len(block)), sizes)
            best = places[first_of_hashes(of_owner(corpus.text_hashes[rows], query))]
            score = self.score[best]
            columns = {
                "row": pa.array(rows),
                "label": pa.array(self.label[best]),
                "grade": pa.array(self.grade[best]),
                "score": pa.array(score, mask=np.isnan(score)),
                "rank": pa.array(ranks_of(sizes)),
            }
            yield judged_batch(block, self.pools.hashes[chosen], ends, columns)
