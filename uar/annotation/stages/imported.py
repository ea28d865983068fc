"""Imported labels: what somebody else's annotator said, from a file, on equal terms with the others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from uar.annotation.judgement import Judgement
from uar.annotation.label_files import read_labels
from uar.annotation.quality.from_files import judgements_of
from uar.annotation.stages.annotator import Annotator, Chain, Question
from uar.collections import Collection


@dataclass(frozen=True)
class Imported(Annotator):
    """`path`: TREC qrels, a TSV, Parquet, or an annotate run folder; see `read_labels`. Label 1 is grade `threshold` or more;
    null: the file's own labels, or where it has grades alone, grade 1 or more. Every passage of the file is judged, whatever
    the candidates are; those that the corpus lacks are left out."""

    needs_llm = False

    path: str
    threshold: int | None = None

    def __post_init__(self) -> None:
        _read(self.path, self.threshold)

    @property
    def stages(self) -> tuple[str, ...]:
        return ("import",)

    @property
    def first_prompt_hash(self) -> str:
        return ""

    def own_pools(self, collection: Collection) -> dict[str, list[str]]:
        judged = _read(self.path, self.threshold)
        return {q: [d for d in judged[q] if collection.corpus.row(d) >= 0] for q in collection.queries if q in judged}

    def chain(self, question: Question) -> Chain:
        of_query = _read(self.path, self.threshold)[question.id]
        found = sorted((of_query[d] for d in question.passages), key=lambda j: j.rank)
        return [replace(judgement, rank=rank) for rank, judgement in enumerate(found, start=1)]
        yield []  # a chain that asks nothing is a generator still


@cache
def _read(path: str, threshold: int | None) -> Mapping[str, Mapping[str, Judgement]]:
    labels = read_labels(Path(path))
    if threshold is not None:
        labels = {q: {d: replace(x, label=None) for d, x in found.items()} for q, found in labels.items()}
    judged = judgements_of(labels, 1 if threshold is None else threshold)
    return {q: {j.doc_id: j for j in judgements} for q, judgements in judged.items()}
