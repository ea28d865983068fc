"""Gold answers from files, for collections that have none."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from uar.collections import Collection
from uar.collections.lines import read_id, read_jsonl
from uar.errors import DataError, UserError
from uar.evaluation.rag.marco import NO_ANSWER

log = logging.getLogger(__name__)


def gold_answers(collection: Collection, query_id: str) -> tuple[str, ...]:
    """Those of a question that are not blank; none where MS MARCO's note says that there is none."""
    answers = collection.queries[query_id].answers
    return () if NO_ANSWER in answers else tuple(a for a in answers if a.strip())


def with_answers(collections: Sequence[Collection], files: Mapping[str, str] | str | None) -> list[Collection]:
    """The collections with the answers of a file, or of a file a slug, in place of their own. UserError for a query id that no
    collection has, and where one file answers a query id that several collections have."""
    if files is None:
        return list(collections)
    if isinstance(files, str):
        return _answered(collections, Path(files))
    unknown = set(files) - {c.slug for c in collections}
    if unknown:
        known = ", ".join(c.slug for c in collections)
        raise UserError(f"rag.answers names {', '.join(sorted(unknown))}; the collections are {known}")
    return [_answered([c], Path(files[c.slug]))[0] if c.slug in files else c for c in collections]


def _answered(collections: Sequence[Collection], path: Path) -> list[Collection]:
    answers = read_answers(path)
    names = ", ".join(c.reference for c in collections)
    for query_id, (number, _) in answers.items():
        having = [c for c in collections if query_id in c.queries]
        if not having:
            raise DataError(path, f"query id {query_id!r} is not in {names}; mend or remove the line", number)
        if len(having) > 1:
            told = " and ".join(c.slug for c in having)
            raise DataError(path, f"query id {query_id!r} is in {told}; give rag.answers={{SLUG: FILE}}", number)
    found = []
    for collection in collections:
        queries = {q: replace(query, answers=answers.get(q, (0, ()))[1]) for q, query in collection.queries.items()}
        missing = sum(not query.answers for query in queries.values())
        if missing:
            log.warning("%s: %s has no answers of %d of %d questions", collection.slug, path, missing, len(queries))
        found.append(replace(collection, queries=queries))
    return found


def read_answers(path: Path) -> dict[str, tuple[int, tuple[str, ...]]]:
    """(line, answers) by query id, from {_id or query_id, answers} lines; answers may be a string or a list of strings."""
    answers: dict[str, tuple[int, tuple[str, ...]]] = {}
    for number, row in read_jsonl(path):
        query_id = read_id(path, number, row, "query_id" if "query_id" in row else "_id")
        given = row.get("answers")
        listed = [given] if isinstance(given, str) else given
        if not isinstance(listed, list) or not all(isinstance(answer, str) for answer in listed):
            raise DataError(path, f"'answers' is {given!r}; a string or a list of strings is needed", number)
        if query_id in answers:
            raise DataError(path, f"query {query_id!r} stands here again; keep one line a query", number)
        answers[query_id] = (number, tuple(listed))
    if not any(listed for _, listed in answers.values()):
        raise DataError(path, 'it holds no answers; give lines such as {"query_id": "q1", "answers": ["..."]}')
    return answers
