"""Gold answers from files, for collections that have none."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uar.collections.collection import Collection
from uar.errors import DataError, UserError
from uar.storage.lines import contradiction, log_repeats, read_id, read_jsonl

log = logging.getLogger(__name__)
NO_ANSWER = "No Answer Present."  # what MS MARCO writes where the passages hold no answer
Answers = dict[str, tuple[int, tuple[str, ...]]]  # (line, answers) by query id


def with_answers(
    collections: Sequence[Collection], files: Mapping[str, str] | str | None, option: str, of_all: bool = True
) -> list[Collection]:
    """The collections with the answers of a file, or of a file a slug, in place of their own; one that a file does not touch
    keeps its own. UserError where one file answers a query id that several collections have.

    `option` is how errors call the files. `of_all`: they are of these collections alone, so that one of others is an error.
    """
    if files is None:
        return list(collections)
    if isinstance(files, str):
        return _answered(collections, Path(files), option, of_all)
    unknown = set(files) - {c.slug for c in collections}
    if unknown and of_all:
        known = ", ".join(c.slug for c in collections)
        raise UserError(f"{option} names {', '.join(sorted(unknown))}; the collections are {known}")
    return [_answered([c], Path(files[c.slug]), option, of_all)[0] if c.slug in files else c for c in collections]


def _answered(collections: Sequence[Collection], path: Path, option: str, of_all: bool) -> list[Collection]:
    answers = read_answers(path)
    names = ", ".join(c.reference for c in collections)
    having = {q: [c for c in collections if q in c.queries] for q in answers}
    for query_id, found in having.items():
        if len(found) > 1:
            places = " and ".join(c.slug for c in found)
            line, _ = answers[query_id]
            raise DataError(path, f"query id {query_id!r} is in {places}; give {option}={{SLUG: FILE}}", line)
    strange = [q for q, found in having.items() if not found]
    if of_all and len(strange) == len(answers):
        raise DataError(path, f"query id {strange[0]!r} and all others are not in {names}; give answers of these questions")
    if of_all and strange:
        log.info("%s: %d of %d lines answer questions that are not in %s", path, len(strange), len(answers), names)
    return [_of_one(collection, answers, path) for collection in collections]


def _of_one(collection: Collection, answers: Answers, path: Path) -> Collection:
    if answers.keys().isdisjoint(collection.queries):
        return collection
    queries = {q: replace(query, answers=answers.get(q, (0, ()))[1]) for q, query in collection.queries.items()}
    missing = sum(not query.answers for query in queries.values())
    if missing:
        log.warning("%s: %s has no answers of %d of %d questions", collection.slug, path, missing, len(queries))
    return replace(collection, queries=queries)


def read_answers(path: Path) -> Answers:
    """(line, answers) by query id, from {_id or query_id, answers} lines. A question may stand there again with the same
    answers, and the log says how many do."""
    answers: Answers = {}
    repeats = 0
    for number, row in read_jsonl(path):
        query_id = read_id(path, number, row, "query_id" if "query_id" in row else "_id")
        given = answers_of(path, number, row, needed=True)
        first, known = answers.setdefault(query_id, (number, given))
        if known != given:
            raise contradiction(path, f"query {query_id!r}", first, number)
        repeats += first != number
    log_repeats(path, repeats, "questions")
    if not any(listed for _, listed in answers.values()):
        raise DataError(path, 'it holds no answers; give lines such as {"query_id": "q1", "answers": ["..."]}')
    return answers


def answers_of(path: Path, number: int, row: Mapping[str, Any], needed: bool = False) -> tuple[str, ...]:
    """The gold answers of a line: a string or a list of strings under `answers`, which may be left out where they are not
    `needed`."""
    given = row.get("answers")
    listed = [] if given is None and not needed else [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(answer, str) for answer in listed):
        raise DataError(path, f"'answers' is {given!r}; a string or a list of strings is needed", number)
    return gold(listed)


def gold(answers: Iterable[str]) -> tuple[str, ...]:
    """Answers that are not blank; none where MS MARCO's note says that there is none."""
    given = [answer for answer in answers if answer.strip()]
    return () if any(answer.strip() == NO_ANSWER for answer in given) else tuple(given)
