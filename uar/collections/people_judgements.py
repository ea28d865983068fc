"""A split with the judgements of a file in place of its own: those that people made on the review page."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median_low

from uar.collections.collection import Collection
from uar.errors import DataError, UserError
from uar.storage.judgement_files import read_judgements

log = logging.getLogger(__name__)
Row = tuple[str, str, int, bool]  # query id, passage id, grade, whether the suggestion of an LLM was seen


def texts_hash(question: str, passage: str) -> str:
    """16 hex digits of what a judgement is about."""
    return hashlib.blake2b(f"{question}\x00{passage}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def with_judgements(collection: Collection, path: Path, assisted: bool) -> Collection:
    """The collection with these judgements as its only ones. Of a passage that several people judged the middle grade counts,
    the lower one of two.

    `assisted`: whether judgements count that were made while an LLM's suggestion was seen; they count alone where nobody
    judged the passage without. DataError where no judgement is of a question and a passage of the collection as they are
    worded today; those that are not are left out, and the log says how many.
    """
    table, positive_grade, _ = read_judgements(path)
    names = ("query_id", "doc_id", "grade", "suggestion_shown", "texts")
    columns = [table[name].to_pylist() for name in names]
    rows_of_corpus = collection.corpus.find(columns[1]).tolist()
    kept: list[Row] = []
    for q, d, grade, shown, texts, row in zip(*columns, rows_of_corpus, strict=True):
        if row < 0 or q not in collection.queries:
            continue
        if texts in (None, texts_hash(collection.queries[q].text, collection.corpus.text(row))):
            kept.append((q, d, grade, bool(shown)))
    others = len(table) - len(kept)
    if not kept:
        reference = collection.reference
        raise DataError(
            path, f"none of its {len(table)} judgements is of a question and a passage of {reference}; give its own"
        )
    if others:
        log.warning("%s: %d of %d judgements are of other questions or texts and are left out", path, others, len(table))
    chosen = _counting(path, kept, assisted)
    qrels = _joined(chosen)
    queries = {q: replace(query, origin="human") if q in qrels else query for q, query in collection.queries.items()}
    unassisted = {(q, d) for q, d, _, shown in kept if not shown}
    helped = {(q, d) for q, d, _, shown in chosen if shown} - unassisted
    return replace(
        collection,
        queries=queries,
        qrels=qrels,
        positive_grade=positive_grade,
        graded=True,
        assisted=len(helped),
    )


def _counting(path: Path, rows: list[Row], assisted: bool) -> list[Row]:
    """Those that count, and say so where an LLM's suggestion was seen."""
    seen = sum(shown for *_, shown in rows)
    if not seen:
        return rows
    if assisted:
        line = "%s: %d of %d judgements were made while an LLM's suggestion was seen, and are not independent of it"
        log.warning(line, path, seen, len(rows))
        alone = {(q, d) for q, d, _, shown in rows if not shown}
        return [row for row in rows if not row[3] or row[:2] not in alone]
    if seen == len(rows):
        raise UserError(
            f"{path}: all {seen} judgements were made while an LLM's suggestion was seen, so that none is people's own; "
            "dataset.assisted=true takes them all the same"
        )
    line = "%s: %d of %d judgements, made while an LLM's suggestion was seen, are left out; dataset.assisted=true takes them"
    log.warning(line, path, seen, len(rows))
    return [row for row in rows if not row[3]]


def _joined(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, list[int]]] = {}
    for query_id, doc_id, grade, _ in rows:
        grades.setdefault(query_id, {}).setdefault(doc_id, []).append(grade)
    return {q: {d: median_low(given) for d, given in of_query.items()} for q, of_query in grades.items()}
