"""Labels that were read from a file as judgements, to measure them as an annotator's."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uar.annotation.conclusions import BLOCK
from uar.annotation.judged_blocks import JudgedBlock, JudgedColumns
from uar.annotation.judgement import Judgement
from uar.errors import UserError
from uar.storage.labelled_pairs import LabelledPairs
from uar.storage.qrels import LARGEST
from uar.storage.segments import ends_of, places_of, ranks_of


class FileJudgements(JudgedColumns):
    """ends: (queries + 1,) places in the others; doc: (pairs,) places in `doc_ids`, in rank order; label, grade, score:
    (pairs,), nan where there is no score."""

    def __init__(self, query_ids: Sequence[str], ends: np.ndarray, doc_ids: pa.Array, *columns: np.ndarray) -> None:
        self._at = {query_id: at for at, query_id in enumerate(query_ids)}
        self.ends, self.doc_ids = ends, doc_ids
        self.doc, self.label, self.grade, self.score = columns

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._at

    def __getitem__(self, query_id: str) -> list[Judgement]:
        (block,) = self.chosen([query_id]).blocks()
        names = ("doc_id", "label", "grade", "score", "rank")
        return [Judgement(*row) for row in zip(*(block.columns[name].to_pylist() for name in names), strict=True)]

    def chosen(self, query_ids: Iterable[str]) -> "FileJudgements":
        query_ids = list(query_ids)
        ends, places = places_of(self.ends, np.array([self._at[q] for q in query_ids], np.int64))
        columns = (column[places] for column in (self.doc, self.label, self.grade, self.score))
        return FileJudgements(query_ids, ends, self.doc_ids, *columns)

    def blocks(self) -> Iterator[JudgedBlock]:
        query_ids = list(self._at)
        for start in range(0, len(query_ids), BLOCK):
            ends = self.ends[start : start + BLOCK + 1]
            own, sizes = slice(ends[0], ends[-1]), np.diff(ends)
            score = self.score[own]
            columns = {
                "doc_id": self.doc_ids.take(pa.array(self.doc[own])),
                "label": pa.array(self.label[own]),
                "grade": pa.array(self.grade[own]),
                "score": pa.array(score, mask=np.isnan(score)),
                "rank": pa.array(ranks_of(sizes)),
                "uncertainty": pa.nulls(len(score), pa.float64()),
            }
            yield JudgedBlock(query_ids[start : start + BLOCK], sizes, columns)


def judgements_of(pairs: LabelledPairs, positive_grade: int, own_labels: bool = True) -> FileJudgements:
    """Judgements by query in rank order: by the file's rank, else its score, else its grade, then passage id. The label is
    the file's own, where it has one and `own_labels` says so, else 1 from `positive_grade` up. UserError where a passage has a
    score or a rank alone."""
    given = pairs.values
    if given["grade"].null_count:
        at = pc.index(given["grade"].is_null(), True).as_py()
        doc_id, query_id = pairs.doc_ids[pairs.doc[at]].as_py(), pairs.query_ids[pairs.query[at]]
        raise UserError(
            f"passage {doc_id!r} of query {query_id!r} has a score or a rank alone; give a file with labels or grades as well"
        )
    grade, score = given["grade"].to_numpy(), given["score"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    label = given["label"].fill_null(-1).to_numpy()
    label = np.where(label < 0 if own_labels else True, grade >= positive_grade, label).astype(np.int8)
    places = np.empty(len(pairs.doc_ids), np.int32)
    places[pc.sort_indices(pairs.doc_ids).to_numpy()] = np.arange(len(places), dtype=np.int32)
    keys = [places[pairs.doc], -grade]
    if given["score"].null_count < len(score):
        keys.append(np.where(np.isnan(score), np.inf, -score))
    if given["rank"].null_count < len(score):
        keys.append(given["rank"].cast(pa.int64()).fill_null(LARGEST).to_numpy())
    order = np.lexsort([*keys, pairs.query])
    ends = ends_of(np.bincount(pairs.query, minlength=len(pairs.query_ids)))
    return FileJudgements(pairs.query_ids, ends, pairs.doc_ids, *(x[order] for x in (pairs.doc, label, grade, score)))
