"""What is exchanged with other tools: passages to judge, and judgements that come back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from uar.reviewing.labelling import Labelling
from uar.reviewing.review_files import judgement_rows


@dataclass(frozen=True)
class ReviewPair:
    """A passage to judge for a question. `suggestion`: see `Manner.in_files`. `judgements`: as in a file of judgements."""

    query_id: str
    doc_id: str
    question: str
    title: str
    text: str
    suggestion: int | None
    judgements: Sequence[Mapping[str, Any]]

    @property
    def key(self) -> str:
        """Ids have no white space."""
        return f"{self.query_id} {self.doc_id}"


@dataclass(frozen=True)
class Returned:
    """A judgement that came back. `row`: its place in the file, from 1. `shown`: whether the person saw a suggestion. `time`:
    seconds since 1970. `start`, `end`: of the marked words, in characters. None: the file does not say. `judgement`: the id
    of the one that went out in its place. `whole`: the file has places for marks, so that None is a change."""

    row: int
    query_id: str
    doc_id: str
    who: str
    grade: int
    shown: bool | None
    time: float | None = None
    seconds: float | None = None
    confidence: float | None = None
    start: int | None = None
    end: int | None = None
    judgement: str | None = None
    whole: bool = False


def review_pairs(labelling: Labelling) -> Iterator[ReviewPair]:
    """In the order of the queue."""
    collection, manner = labelling.collection, labelling.manner
    judged = {
        key: list(rows) for key, rows in groupby(judgement_rows(labelling), lambda row: (row["query_id"], row["doc_id"]))
    }
    for row in labelling.database.rows("select * from passages join items using (item) order by item, place"):
        query_id, doc_id = row["query_id"], row["doc_id"]
        title, text = collection.corpus.parts(doc_id)
        yield ReviewPair(
            query_id,
            doc_id,
            collection.queries[query_id].text,
            title,
            text,
            manner.in_files(query_id, row["label"], row["grade"]),
            judged.get((query_id, doc_id), []),
        )
