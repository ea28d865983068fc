"""Any ir_datasets id as a collection."""

import errno
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from uar.collections.answer_files import gold
from uar.collections.collection import Collection, Query
from uar.collections.documents import Corpus, DuplicateId, build_corpus
from uar.collections.languages import AUTO, language_code
from uar.collections.presets import settings_of
from uar.errors import UserError
from uar.storage.files import cache_dir, digest
from uar.storage.locks import built_once

log = logging.getLogger(__name__)
FORMAT = 4  # of the built corpus; a new number builds anew


def read_irds(dataset_id: str, reference: str, slug: str) -> Collection:
    """Open an ir_datasets id that has documents and queries; data that are missing are downloaded by ir_datasets."""
    dataset, version = _load(dataset_id, reference)
    if not dataset.has_docs() or not dataset.has_queries():
        raise UserError(f"{reference}: {dataset_id!r} has no documents or no queries; name a split, such as {dataset_id}/test")
    with _faults(dataset, reference):
        corpus = _open_corpus(dataset, dataset_id, version)
        queries = {_one_word(str(q.query_id)): _query(q) for q in dataset.queries_iter()}
        qrels = _qrels(dataset, reference)
    judged = {i: q for i, q in queries.items() if i in qrels} if qrels else queries
    left_out = sum(corpus.row(d) < 0 for grades in qrels.values() for d in grades)
    if left_out:
        log.warning("%s: %d judgements of passages that the corpus lacks", reference, left_out)
    return Collection(reference, slug, corpus, judged, qrels, **settings_of(dataset_id))


def _qrels(dataset: Any, reference: str) -> dict[str, dict[str, int]]:
    """Of two grades of a pair the later counts, as in what is published on these sets, which nobody here can mend."""
    qrels: dict[str, dict[str, int]] = {}
    repeats = 0
    for row in dataset.qrels_iter() if dataset.has_qrels() else ():
        grades, doc_id, grade = qrels.setdefault(str(row.query_id), {}), str(row.doc_id), int(row.relevance)
        repeats += grades.get(doc_id, grade) != grade
        grades[doc_id] = grade
    if repeats:
        log.warning("%s: %d judgements stand there again with another grade; the last of a pair counts", reference, repeats)
    return qrels


def _one_word(name: str) -> str:
    if name.split() != [name]:
        raise UserError(
            f"the id {name!r} has white space or nothing in it, which no TREC file can hold; copy the set into a "
            "local folder with other ids"
        )
    return name


def read_irds_corpus(dataset_id: str, reference: str) -> Corpus:
    """The documents alone of an ir_datasets id."""
    dataset, version = _load(dataset_id, reference)
    if not dataset.has_docs():
        raise UserError(f"{reference}: {dataset_id!r} has no documents; name an id that has")
    with _faults(dataset, reference):
        return _open_corpus(dataset, dataset_id, version)


def _load(dataset_id: str, reference: str) -> tuple[Any, str]:
    """The dataset, and the version of ir_datasets."""
    import ir_datasets  # slow to import, and only this reader needs it

    try:
        return ir_datasets.load(dataset_id), ir_datasets.__version__
    except KeyError as error:
        raise UserError(f"{reference}: ir_datasets knows no {dataset_id!r}; `ir_datasets list` shows the ids") from error


@contextmanager
def _faults(dataset: Any, reference: str) -> Iterator[None]:
    """UserError for what is wrong with the files of a dataset."""
    try:
        yield
    except DuplicateId as error:
        raise UserError(f"{reference}: {error}") from error
    except Exception as error:  # broken archives, lines and downloads raise almost anything
        if isinstance(error, UserError):
            raise UserError(f"{reference}: {error}") from error
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{reference}: {_message(dataset, error)}") from error


def _query(row: Any) -> Query:
    answers = getattr(row, "answers", None) or ()
    answers = [answers] if isinstance(answers, str) else map(str, answers)
    return Query(str(row.query_id), str(row.default_text()), gold(answers))


def _open_corpus(dataset: Any, dataset_id: str, version: str) -> Corpus:
    key = digest("irds", FORMAT, _of_docs(dataset, dataset_id), version)
    folder = cache_dir() / "corpora" / key

    def passages() -> Iterator[tuple[str, str, str]]:
        for doc in dataset.docs_iter():
            yield _one_word(str(doc.doc_id)), *_title_and_text(doc)

    return Corpus(built_once(folder, lambda: build_corpus(folder, passages()))).in_language(_language(dataset))


def _language(dataset: Any) -> str:
    """What ir_datasets says of the documents, where it says one language that is known."""
    try:
        return language_code(dataset.docs_lang() or AUTO)
    except UserError:
        return AUTO


def _of_docs(dataset: Any, dataset_id: str) -> str:
    """The shortest of the ids, up to this one, that has these documents: splits share what they are parts of. What ir_datasets
    calls their namespace is one for several corpora, such as all of bright and wikiclir."""
    import ir_datasets

    parts, own = dataset_id.split("/"), dataset.docs_handler()
    for length in range(1, len(parts)):
        name = "/".join(parts[:length])
        with suppress(KeyError):
            if (other := ir_datasets.load(name)).has_docs() and other.docs_handler() is own:
                return name
    return dataset_id


def _title_and_text(doc: Any) -> tuple[str, str]:
    """The title is empty where the text holds it: what ir_datasets makes of several fields (`default_text`)."""
    title = str(getattr(doc, "title", "") or getattr(doc, "document_title", "") or "")
    if hasattr(doc, "text"):
        return title, str(doc.text)
    text = str(doc.default_text())
    return ("" if title in text else title), text


def _message(dataset: Any, error: Exception) -> str:
    """What went wrong and which files the dataset wants, from ir_datasets' own descriptions of them."""
    files = list(_files(dataset))
    message = (str(error).splitlines() or [""])[0]
    what = message if 0 < len(message) < 160 else type(error).__name__  # the text of a failed connection is its whole history
    missing = [f"{source} as {path}" for source, path in files if not os.path.exists(path)]
    if missing:
        return f"ir_datasets could not read or download it ({what}); with no network, put {' and '.join(missing)}"
    there = " and ".join(str(path) for _, path in files) or "its files"
    return f"ir_datasets could not read it ({what}); see whether {there} is whole, or put it there anew"


def _files(dataset: Any) -> Iterator[tuple[str, Path]]:
    """(where it comes from, where ir_datasets looks for it) of the files behind documents, queries and judgements, besides
    those whose unpacked copies are there."""
    handlers = [
        getattr(dataset, f"{kind}_handler")() for kind in ("docs", "queries", "qrels") if getattr(dataset, f"has_{kind}")()
    ]
    found = {str(path): (source, path) for handler in handlers for source, path in _behind(handler, set())}
    yield from found.values()


def _behind(part: Any, seen: set[int]) -> Iterator[tuple[str, Path]]:
    from ir_datasets.util import Cache, Download, LocalDownload, home_path

    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, list | tuple):
        for one in part:
            yield from _behind(one, seen)
    elif isinstance(part, LocalDownload):
        yield "its file", Path(part.path(force=False))
    elif isinstance(part, Download):
        place = part.path(force=False) if part._cache_path else home_path() / "downloads" / str(part.expected_md5)
        yield _source(part.mirrors), Path(place)
    elif type(part).__module__.startswith("ir_datasets") and not (isinstance(part, Cache) and part.path(force=False).exists()):
        yield from _behind(list(getattr(part, "__dict__", {}).values()), seen)


def _source(mirrors: Iterable[Any]) -> str:
    return next((m.url for m in mirrors if hasattr(m, "url")), "the file that `ir_datasets` describes")
