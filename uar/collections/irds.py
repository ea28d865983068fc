"""Any ir_datasets id as a collection."""

import logging
from collections.abc import Iterator
from typing import Any

from uar.collections.collection import Collection, Query
from uar.collections.corpus import Corpus, DuplicateId, build_corpus
from uar.errors import UserError
from uar.files import cache_dir, digest

log = logging.getLogger(__name__)


def read_irds(dataset_id: str, reference: str, slug: str) -> Collection:
    """Open an ir_datasets id that has documents and queries; data that are missing are downloaded by ir_datasets."""
    import ir_datasets  # slow to import, and only this reader needs it

    try:
        dataset = ir_datasets.load(dataset_id)
    except KeyError as error:
        raise UserError(f"{reference}: ir_datasets knows no {dataset_id!r}; `ir_datasets list` shows the ids") from error
    if not dataset.has_docs() or not dataset.has_queries():
        raise UserError(f"{reference}: {dataset_id!r} has no documents or no queries; name a split, such as {dataset_id}/test")
    try:
        corpus = _open_corpus(dataset, dataset_id, ir_datasets.__version__)
        queries = {str(q.query_id): _query(q) for q in dataset.queries_iter()}
        qrels: dict[str, dict[str, int]] = {}
        for row in dataset.qrels_iter() if dataset.has_qrels() else ():
            qrels.setdefault(str(row.query_id), {})[str(row.doc_id)] = int(row.relevance)
    except DuplicateId as error:
        raise UserError(f"{reference}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{reference}: ir_datasets could not read or download it ({str(error).splitlines()[0]}); with no network, place "
            f"its files under {ir_datasets.util.home_path()} as `ir_datasets` names them"
        ) from error
    judged = {i: q for i, q in queries.items() if i in qrels} if qrels else queries
    left_out = sum(corpus.row(d) < 0 for grades in qrels.values() for d in grades)
    if left_out:
        log.warning("%s: %d judgements of passages that the corpus lacks", reference, left_out)
    return Collection(reference, slug, corpus, judged, qrels)


def _query(row: Any) -> Query:
    answers = tuple(str(a) for a in getattr(row, "answers", ()) or ())
    return Query(str(row.query_id), str(row.default_text()), answers)


def _open_corpus(dataset: Any, dataset_id: str, version: str) -> Corpus:
    key = digest("irds", dataset.docs_namespace() or dataset_id, version)
    folder = cache_dir() / "corpora" / key
    if (folder / "manifest.json").is_file():
        return Corpus(folder)

    def passages() -> Iterator[tuple[str, str, str]]:
        for doc in dataset.docs_iter():
            title = str(getattr(doc, "title", "") or "")
            yield str(doc.doc_id), title, str(doc.text if hasattr(doc, "text") else doc.default_text())

    return build_corpus(folder, passages())
