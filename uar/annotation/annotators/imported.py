"""Imported labels: what somebody else's annotator said, from a file, on equal terms with the others."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.judgement import Judgement
from uar.annotation.quality.from_files import judgements_of
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.call import Chain, Question
from uar.storage.files import file_hash
from uar.storage.label_files import read_labels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported(Annotator):
    """`path`: TREC qrels, a TSV, Parquet, or an annotate run folder; see `read_labels`. Label 1 is grade `threshold` or more;
    null: the file's own labels, or where it has grades alone, grade 1 or more. Every passage of the file is judged, whatever
    the candidates are; those that the corpus lacks are left out."""

    needs_llm = False

    path: str
    threshold: int | None = None

    def __post_init__(self) -> None:
        self._judged  # noqa: B018 a fault in the file is told before anything else is done

    @cached_property
    def _judged(self) -> Mapping[str, Mapping[str, Judgement]]:
        labels = read_labels(Path(self.path))
        if self.threshold is not None:
            labels = {q: {d: replace(x, label=None) for d, x in found.items()} for q, found in labels.items()}
        judged = judgements_of(labels, 1 if self.threshold is None else self.threshold)
        return {q: {j.doc_id: j for j in judgements} for q, judgements in judged.items()}

    @property
    def stages(self) -> tuple[str, ...]:
        return ("import",)

    def asks(self) -> dict[str, Any]:
        path = Path(self.path)
        return {"annotator": type(self).__name__, "labels": file_hash(path / "labels.parquet" if path.is_dir() else path)}

    def own_pools(self, collection: Collection) -> dict[str, list[str]]:
        named = {q: self._judged[q] for q in collection.queries if q in self._judged}
        pools = {q: [d for d in found if collection.corpus.row(d) >= 0] for q, found in named.items()}
        given, known = (sum(map(len, found.values())) for found in (named, pools))
        if given and not known:
            odd = next(d for found in named.values() for d in found)
            raise UserError(
                f"{self.path}: none of its passages is in {collection.reference}, such as {odd!r}; give labels of this corpus"
            )
        if known < given:
            lacking = f"{given - known} of {given} labels are of passages that the corpus lacks and are left out"
            log.warning("%s: %s", self.path, lacking)
        return pools

    def judgements(self, question: Question) -> Chain:
        of_query = self._judged[question.id]
        found = sorted((of_query[d] for d in question.passages), key=lambda j: j.rank)
        return [replace(judgement, rank=rank) for rank, judgement in enumerate(found, start=1)]
        yield []  # a chain that asks nothing is a generator still
