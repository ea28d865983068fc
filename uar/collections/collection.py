"""What a reference opens to: one corpus and one split's queries, judgements and candidates."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from uar.collections.documents import Corpus
from uar.collections.images import Image
from uar.errors import UserError
from uar.storage.files import digest


@dataclass(frozen=True)
class Query:
    """`origin`: who judged what answers it, see `Collection`; None: as the collection says. `image`: shown to LLMs with the
    text."""

    id: str
    text: str
    answers: tuple[str, ...] = ()
    origin: str | None = None
    image: Image | None = None

    @property
    def asked(self) -> tuple[str, str | None]:
        """What questions that ask the same share, whatever their ids are: the words without capitals, and the image."""
        return " ".join(self.text.casefold().split()), self.image.key if self.image else None


@dataclass(frozen=True)
class Collection:
    """One split of a collection.

    `qrels` holds the grades as they stand in the file; a passage counts as positive from `positive_grade` up. Where
    `graded` is false, nDCG takes binary gains (positive or not), else the grades. `drop_own`: a passage with the id of a
    query is never a result of that query (ArguAna, Quora). `origin`: who judged, `human`, or `generated` where a question was
    written from its positive; a question may say it for itself. `assisted`: how many of the judged pairs people judged while
    they saw what an LLM says of them.
    """

    reference: str
    slug: str
    corpus: Corpus
    queries: dict[str, Query]
    qrels: dict[str, dict[str, int]]
    candidates: dict[str, list[str]] = field(default_factory=dict)
    positive_grade: int = 1
    graded: bool = True
    drop_own: bool = False
    origin: str = "human"
    assisted: int = 0

    @cached_property
    def hash(self) -> str:
        """Changes with the corpus, the split's queries or its judgements, and with how these are counted."""
        queries = [(q.id, q.text, q.answers) for q in self.queries.values()]
        images = {q.id: q.image.key for q in self.queries.values() if q.image}
        counted = (self.qrels, self.positive_grade, self.graded, self.drop_own)
        return digest(self.corpus.hash, queries, *counted, *([images] if images else []))

    @cached_property
    def wording(self) -> str:
        """A hash that changes with the corpus and the texts of the split's queries alone."""
        return digest(self.corpus.hash, {q: query.text for q, query in self.queries.items()})

    def judged_as(self, other: "Collection") -> bool:
        """Whether both have the same judgements, and so are one split, whatever their references and however their queries are
        worded."""
        return self.qrels == other.qrels

    @cached_property
    def query_rows(self) -> dict[str, int]:
        """Place of each query in file order."""
        return {query_id: row for row, query_id in enumerate(self.queries)}

    def positives(self, query_id: str) -> list[str]:
        """Ids of the passages that people judged positive for a query, best grade first."""
        grades = self.qrels.get(query_id, {})
        return sorted((d for d, g in grades.items() if g >= self.positive_grade), key=lambda d: (-grades[d], d))

    @cached_property
    def _judges_negatives(self) -> bool:
        return any(g < self.positive_grade for grades in self.qrels.values() for g in grades.values())

    def positive(self, query_id: str, doc_id: str) -> bool | None:
        """What people say of a pair; None where nobody judged it. Where a split's judgements are positives alone, a passage
        that is not among those of a judged query counts as not positive."""
        grades = self.qrels.get(query_id)
        if grades is None or (doc_id not in grades and self._judges_negatives):
            return None
        return grades.get(doc_id, self.positive_grade - 1) >= self.positive_grade

    def trainable(self, query_id: str) -> list[str]:
        """Those of the positives that the corpus has: judgements of ir_datasets may name passages that it lacks."""
        return [d for d in self.positives(query_id) if self.corpus.row(d) >= 0]

    def gains(self) -> dict[str, dict[str, int]]:
        """The judgements as nDCG should see them."""
        return self.qrels if self.graded else self.binary()

    def binary(self) -> dict[str, dict[str, int]]:
        """The judgements with 1 for a positive and 0 for another passage. A grade below 0 stays: to measures that tell judged
        passages from others, such as bpref, it is that of one that nobody judged."""
        positive = self.positive_grade
        return {q: {d: 1 if g >= positive else min(g, 0) for d, g in grades.items()} for q, grades in self.qrels.items()}

    def origin_of(self, query_id: str) -> str:
        """Who judged a question's passages."""
        return self.queries[query_id].origin or self.origin

    def by_people(self, query_ids: Iterable[str]) -> list[str]:
        """Those of the queries that people judged; all of them where they judged none."""
        given = list(query_ids)
        return [q for q in given if self.origin_of(q) == "human"] or given

    def head(self, limit: int | None) -> list[str]:
        """The first `limit` query ids in file order; all where it is None."""
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise UserError(f"limit={limit!r}: a whole number from 1 on is needed, or null for all queries")
        return list(self.queries)[:limit]

    def answered(self, query_ids: Iterable[str]) -> list[str]:
        """Those of the queries that have gold answers."""
        return [q for q in query_ids if self.queries[q].answers]
