"""Imported labels: what somebody else's annotator said, from a file, on equal terms with the others."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.own_judgements import OwnJudgements
from uar.annotation.quality.from_files import FileJudgements, judgements_of
from uar.collections import Collection, Corpus
from uar.errors import UserError
from uar.llm.call import Chain, Question
from uar.machine.heap import release_heap
from uar.pools.stored_pools import pool_table
from uar.storage.files import file_hash
from uar.storage.labelled_pairs import read_pairs
from uar.storage.segments import ends_of

log = logging.getLogger(__name__)
BLOCK = 1 << 17  # ids that are looked up at once


@dataclass(frozen=True)
class Imported(Annotator):
    """`path`: TREC qrels, a TSV, Parquet, or an annotate run folder; see `read_pairs`. Label 1 is grade `threshold` or more;
    null: the file's own labels, or where it has grades alone, grade 1 or more. Every passage of the file is judged, whatever
    the candidates are; those that the corpus lacks are left out."""

    needs_llm = False

    path: str
    threshold: int | None = None

    def __post_init__(self) -> None:
        self._judged  # noqa: B018 a fault in the file is told before anything else is done

    @cached_property
    def _judged(self) -> FileJudgements:
        grade = 1 if self.threshold is None else self.threshold
        judged = judgements_of(read_pairs(Path(self.path)), grade, own_labels=self.threshold is None)
        release_heap()
        return judged

    @property
    def stages(self) -> tuple[str, ...]:
        return ("import",)

    def asks(self) -> dict[str, Any]:
        path = Path(self.path)
        return {"annotator": type(self).__name__, "labels": file_hash(path / "labels.parquet" if path.is_dir() else path)}

    def own(self, collection: Collection) -> OwnJudgements:
        named = self._judged.chosen(q for q in collection.queries if q in self._judged)
        rows = _rows_of(collection.corpus, named.doc_ids)[named.doc]
        known = rows >= 0
        if len(rows) and not known.any():
            raise UserError(
                f"{self.path}: none of its passages is in {collection.reference}, such as "
                f"{named.doc_ids[named.doc[0]].as_py()!r}; give labels of this corpus"
            )
        if not known.all():
            lacking = f"{(~known).sum()} of {len(rows)} labels are of passages that the corpus lacks and are left out"
            log.warning("%s: %s", self.path, lacking)
        ends = ends_of(known)[named.ends]
        pools = pool_table(collection, list(named), ends, rows[known])
        return OwnJudgements(pools, named.label[known], named.grade[known], named.score[known])

    def judgements(self, question: Question) -> Chain:
        raise TypeError("imported labels ask nothing; see `own`")


def _rows_of(corpus: Corpus, doc_ids: pa.Array) -> np.ndarray:
    """(ids,) rows of the corpus; -1 where it has no such passage."""
    blocks = (doc_ids.slice(start, BLOCK).to_pylist() for start in range(0, len(doc_ids), BLOCK))
    return np.concatenate([np.zeros(0, np.int32), *(corpus.find(block).astype(np.int32) for block in blocks)])
