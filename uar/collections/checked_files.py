"""Qrels and candidates whose queries and passages a collection has."""

import logging
from collections.abc import Container
from itertools import islice
from pathlib import Path

from uar.collections.collection import Collection
from uar.collections.documents import Corpus
from uar.errors import DataError
from uar.storage.candidate_files import Candidates, read_candidates
from uar.storage.qrels import Qrels, line_of, read_qrels

log = logging.getLogger(__name__)
BLOCK = 8_192  # queries whose passages are looked up at once


def checked_qrels(path: Path, queries: Container[str], corpus: Corpus) -> Qrels:
    """Judgements by query and passage; DataError for an unknown one of either."""
    qrels = read_qrels(path)
    for query_id in qrels:
        if query_id not in queries:
            message = f"query id {query_id!r} is not in queries.jsonl; add it there or remove the line"
            raise DataError(path, message, line_of(path, query_id))
    doc_ids = list({doc_id for grades in qrels.values() for doc_id in grades})
    unknown = {doc_ids[at] for at in (corpus.find(doc_ids) < 0).nonzero()[0]}
    if unknown:
        query_id, doc_id = next((q, d) for q, grades in qrels.items() for d in grades if d in unknown)
        message = f"corpus id {doc_id!r} is not in corpus.jsonl; add it there or remove the line"
        raise DataError(path, message, line_of(path, query_id, doc_id))
    return qrels


def checked_candidates(path: Path, queries: Container[str], corpus: Corpus) -> dict[str, list[str]]:
    """Passage ids a query, each once, in file order; DataError for an unknown query or passage."""
    found, others = _known(path, queries, corpus, "corpus.jsonl")
    if others:
        raise DataError(path, f"query id {others[0].query_id!r} is not in queries.jsonl", others[0].line)
    return found


def candidates_of(path: Path, collection: Collection) -> tuple[dict[str, list[str]], int]:
    """Passage ids a query of a split, and the number of lines that are of other queries; DataError for an unknown passage."""
    found, others = _known(path, collection.queries, collection.corpus, collection.reference)
    return found, len(others)


def _known(path: Path, queries: Container[str], corpus: Corpus, name: str) -> tuple[dict[str, list[str]], list[Candidates]]:
    found: dict[str, list[str]] = {}
    others: list[Candidates] = []
    lines = read_candidates(path)
    while block := list(islice(lines, BLOCK)):
        others += [row._replace(doc_ids=[]) for row in block if row.query_id not in queries]
        own = [row for row in block if row.query_id in queries]
        doc_ids = list({doc_id for row in own for doc_id in row.doc_ids})
        unknown = {doc_ids[at] for at in (corpus.find(doc_ids) < 0).nonzero()[0]}
        for row in own:
            odd = next((d for d in row.doc_ids if d in unknown), None) if unknown else None
            if odd is not None:
                raise DataError(path, f"candidate id {odd!r} is not in {name}; remove it", row.line)
            found[row.query_id] = row.doc_ids
    return found, others
