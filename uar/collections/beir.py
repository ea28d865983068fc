"""BEIR-format folders: corpus.jsonl, queries.jsonl, qrels/<split>.tsv, optional candidates/<split>.jsonl.

A line of queries.jsonl may name an `image`, a path below the folder or an http(s) URL.

An optional `collection.json` holds {"positive_grade": 2, "graded": false}, for folders whose judgements are graded,
{"drop_own": true} where a query's own document is no result of it, {"origin": "generated"} where no person judged (a line of
queries.jsonl may say it for its question), and {"language": "de"} where the passages' script does not say it.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uar.collections.answer_files import answers_of
from uar.collections.checked_files import checked_candidates, checked_qrels
from uar.collections.collection import Collection, Query
from uar.collections.documents import Corpus, DuplicateId, build_corpus
from uar.collections.images import Image, check_images
from uar.collections.languages import AUTO, language_code
from uar.errors import DataError, UserError
from uar.launch.override_text import typed
from uar.storage.files import cache_dir, digest, file_hash
from uar.storage.lines import read_id, read_jsonl, read_string
from uar.storage.locks import built_once

log = logging.getLogger(__name__)
ORIGINS = ("human", "generated")
SETTINGS: dict[str, tuple[type, str]] = {  # of collection.json: kind, and what is needed in words
    "positive_grade": (int, "a whole number"),
    "graded": (bool, "true or false"),
    "drop_own": (bool, "true or false"),
    "origin": (str, " or ".join(ORIGINS)),
    "language": (str, "a code such as 'zh'"),
}
UNJUDGED = "train"  # the split of a folder that has no other
FORMAT = 2  # of the built corpus; a new number builds anew


def read_folder(folder: Path, split: str, reference: str, slug: str) -> Collection:
    """Open one split of a folder; every fault is a DataError that names file and line. A folder without any split has one,
    `train`: all its questions, which nobody judged."""
    corpus = read_corpus(folder, reference)
    if not (folder / "queries.jsonl").is_file():
        of_folder = {"dataset": "local", "dataset.path": str(folder), "questions": "generate"}
        raise DataError(
            folder / "queries.jsonl",
            "no such file; a collection folder needs corpus.jsonl and queries.jsonl (for a corpus that has none, an LLM "
            f"writes questions: {typed('annotate', of_folder)})",
        )
    qrels_path = folder / "qrels" / f"{split}.tsv"
    candidates_path = _candidates_path(folder, split)
    known = splits_of(folder)
    unjudged = not known and split == UNJUDGED
    if not qrels_path.is_file() and candidates_path is None and not unjudged:
        has = ", ".join(known) or f"{UNJUDGED} alone, of questions that nobody judged"
        raise UserError(
            f"{reference}: no split {split!r} in {folder} (no qrels/{split}.tsv); "
            f"it has {has}: name one of these; a training does without by dataset.dev=null 'dataset.test=[]'"
        )
    everything = read_queries(folder / "queries.jsonl")
    qrels = checked_qrels(qrels_path, everything, corpus) if qrels_path.is_file() else {}
    candidates = checked_candidates(candidates_path, everything, corpus) if candidates_path else {}
    queries = {i: q for i, q in everything.items() if unjudged or i in qrels or i in candidates}
    if unjudged:
        log.info(
            "%s: no qrels and no candidates there; its %d questions are taken, which nobody judged", reference, len(queries)
        )
    if pictured := check_images(folder / "queries.jsonl", ((q.id, q.image) for q in queries.values())):
        line = "%s: %d of %d questions have an image, which LLMs are shown; retrievers search with the text alone"
        log.info(line, reference, pictured, len(queries))
    settings = {name: value for name, value in _settings(folder / "collection.json").items() if name != "language"}
    return Collection(reference, slug, corpus, queries, qrels, candidates, **settings)


def splits_of(folder: Path) -> list[str]:
    """Those that a folder has judgements or candidates of."""
    judged, offered = folder.glob("qrels/*.tsv"), folder.glob("candidates/*.jsonl")
    return sorted({path.stem for path in judged} | {path.name.split(".")[0] for path in offered})


def read_corpus(folder: Path, reference: str) -> Corpus:
    """The passages of a folder, which needs nothing else for that."""
    if not folder.is_dir():
        raise UserError(f"{reference}: no folder {folder}; give an existing folder with corpus.jsonl and queries.jsonl")
    path = folder / "corpus.jsonl"
    if not path.is_file():
        raise DataError(path, "no such file; a collection folder needs corpus.jsonl and queries.jsonl")
    return _open_corpus(path).in_language(_settings(folder / "collection.json").get("language", AUTO))


def _candidates_path(folder: Path, split: str) -> Path | None:
    exact = folder / "candidates" / f"{split}.jsonl"
    if exact.is_file():
        return exact
    found = sorted(folder.glob(f"candidates/{split}.*.jsonl"))
    if len(found) > 1:
        others = ", ".join(path.name for path in found[1:])
        log.info("%s: of several candidates %s are taken; others: %s", folder, found[0].name, others)
    return found[0] if found else None


def _settings(path: Path) -> dict[str, Any]:
    values = _object(path) if path.is_file() else {}
    for name, value in values.items():
        if name not in SETTINGS:
            raise DataError(path, f"unknown key {name!r}; allowed are {', '.join(map(repr, SETTINGS))}")
        kind, needed = SETTINGS[name]
        if type(value) is not kind or (name == "origin" and value not in ORIGINS):
            raise DataError(path, f"{name!r} is {value!r}; {needed} is needed")
    if "language" in values:
        try:
            values["language"] = language_code(values["language"])
        except UserError as error:
            raise DataError(path, str(error)) from error
    return values


def _object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(path, f"broken JSON ({error.msg})", error.lineno) from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 ({error.reason}); save the file as UTF-8") from error
    if not isinstance(values, dict):
        raise DataError(path, f"found a JSON {type(values).__name__}, an object {{...}} is needed")
    return values


def _open_corpus(path: Path) -> Corpus:
    content = file_hash(path)
    folder = cache_dir() / "corpora" / digest(content, FORMAT)
    try:
        return Corpus(built_once(folder, lambda: build_corpus(folder, _passages(path), content)))
    except DuplicateId as error:
        lines = [number for number, row in read_jsonl(path) if str(row["_id"]) == error.doc_id]
        raise DataError(
            path, f"duplicate id {error.doc_id!r} (first at line {lines[0]}); ids must differ", lines[1]
        ) from error
    except UserError as error:
        raise error if isinstance(error, DataError) else DataError(path, str(error)) from error


def _passages(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, row in read_jsonl(path):
        yield (
            read_id(path, number, row, "_id"),
            read_string(path, number, row, "title", ""),
            read_string(path, number, row, "text"),
        )


def read_queries(path: Path) -> dict[str, Query]:
    """Queries by id in file order."""
    queries: dict[str, Query] = {}
    for number, row in read_jsonl(path):
        query_id = read_id(path, number, row, "_id")
        if query_id in queries:
            raise DataError(path, f"duplicate id {query_id!r}; ids must differ", number)
        origin = row.get("origin") if row.get("origin") in ORIGINS else None  # other folders mean other things by it
        image = read_string(path, number, row, "image", "")
        queries[query_id] = Query(
            query_id,
            read_string(path, number, row, "text"),
            answers_of(path, number, row),
            origin,
            Image(image, path.parent) if image else None,
        )
    return queries
