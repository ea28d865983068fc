"""Labels that were read from a file as judgements, to measure them as an annotator's."""

from collections.abc import Mapping

from uar.annotation.judgement import Judged, Judgement
from uar.errors import UserError
from uar.storage.label_files import FileLabel


def judgements_of(labels: Mapping[str, Mapping[str, FileLabel]], positive_grade: int) -> Judged:
    """Judgements by query in rank order: by the file's rank, else its score, else its grade, then passage id. The label is
    the file's own, else 1 from `positive_grade` up. UserError where a passage has a score or a rank alone."""
    return {
        query_id: [
            _judgement(query_id, doc_id, label, rank, positive_grade)
            for rank, (doc_id, label) in enumerate(sorted(of_query.items(), key=_place), start=1)
        ]
        for query_id, of_query in labels.items()
    }


def _judgement(query_id: str, doc_id: str, given: FileLabel, rank: int, positive_grade: int) -> Judgement:
    if given.grade is None:
        raise UserError(
            f"passage {doc_id!r} of query {query_id!r} has a score or a rank alone; give a file with labels or grades as well"
        )
    label = int(given.grade >= positive_grade) if given.label is None else given.label
    return Judgement(doc_id, label, given.grade, given.score, rank)


def _place(item: tuple[str, FileLabel]) -> tuple[float, float, int, str]:
    doc_id, given = item
    rank = float("inf") if given.rank is None else given.rank
    score = float("-inf") if given.score is None else given.score
    return rank, -score, -(given.grade or 0), doc_id
