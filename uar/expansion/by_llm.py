"""What an LLM writes for queries and passages: the options, the model, and what was written."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra

from uar.collections import Collection, Corpus
from uar.errors import UserError
from uar.expansion.passage_texts import FORMS, Passages, PassageWriter, expanded_corpus
from uar.expansion.query_texts import QueryWriter
from uar.llm.one_model import OneModel
from uar.llm.pooled import PooledQuestions
from uar.retrievers.session import Session

log = logging.getLogger(__name__)
MEAN = "mean"
JOINS = ("append", "replace", "fuse", MEAN)
OF_QUERIES = {"join": JOINS[0], "repeat": None, "query_length": None}  # options, as they are where nothing is written


class ByLLM:
    """What `expand=NAME` instantiates. `writer`, `document_writer`, `llm`: configs; see `OneModel` for the model and the
    options below it. At least one of `writer` and `documents` is given.

    `join`: the text that is searched is the query and then what was written (`append`, the query `repeat` times; None is 5 for
    BM25 and 1 for others), or what was written alone (`replace`). `fuse` ranks with both, and adds up reciprocal ranks. `mean`
    searches with the mean of both vectors (as HyDE, arXiv 2212.10496). A query for which nothing was written is searched as it
    is. `query_length`: tokens that encoders read of such a text; None: see `Ranker.with_room`.

    `documents`: what is written for each passage, `keywords`, an `abstract` or `questions` (doc2query, arXiv 1904.08375), or a
    prompt file; None for nothing. A passage for which nothing was written is searched as it is.
    """

    def __init__(
        self,
        writer: Mapping[str, Any] | None,
        llm: Mapping[str, Any],
        store: str,
        join: str = "append",
        repeat: int | None = None,
        max_failure_rate: float = 0.05,
        retry_failures: Sequence[str] = (),
        price: Mapping[str, Any] | None = None,
        documents: str | None = None,
        document_writer: Mapping[str, Any] | None = None,
        query_length: int | None = None,
    ) -> None:
        if join not in JOINS:
            raise UserError(f"expand.join={join!r}; allowed: {', '.join(JOINS)}")
        if repeat is not None and (repeat < 1 or join != "append"):
            raise UserError(f"expand.repeat={repeat}: at least 1 is needed, with expand.join=append alone; else leave it null")
        if not writer:
            refuse_idle({"join": join, "repeat": repeat, "query_length": query_length})
        self.writer: QueryWriter | None = hydra.utils.instantiate(writer, _convert_="all") if writer else None
        self.document_writer = writer_of(documents, document_writer or {})
        self.join, self.repeat, self.query_length = join, repeat, query_length
        self.model = OneModel("expand", llm, store, max_failure_rate, retry_failures, price)
        self.name = f"{self.writer.prompt.name} of {self.model.name} ({join})" if self.writer else ""
        self.document_name = f"{self.document_writer.prompt.name} of {self.model.name}" if self.document_writer else ""
        self._corpora: dict[str, Corpus] = {}

    def opened(self, session: Session) -> None:
        """For the length of a session, with which the model closes."""
        self.model.opened(session)

    def written(self, collection: Collection) -> dict[str, str]:
        """What the LLM wrote, by query; nothing of those whose call failed, which are counted."""
        if self.writer is None:
            return {}
        queries = collection.queries
        work = self.model.ask(self.writer, PooledQuestions(collection, dict.fromkeys(queries, ())), "expand", self.name)
        if work.failed:
            line = "%s: calls failed: %d of %d questions are searched as they are"
            log.warning(line, collection.slug, len(work.failed), len(queries))
        return dict(work.results)

    def corpus_of(self, collection: Collection) -> Corpus:
        """The collection's passages with what the LLM wrote for them, once in the life of this object; a passage whose call
        failed is as it was, and how many are is said."""
        writer, corpus = self.document_writer, collection.corpus
        if writer is None:
            return corpus
        if corpus.hash not in self._corpora:
            passages = Passages(collection.slug, collection.reference, corpus)
            work = self.model.ask(writer, passages, "expand passages", self.document_name, "passages")
            if work.failed:
                line = "%s: calls failed: %d of %d passages are searched as they are"
                log.warning(line, collection.slug, len(work.failed), len(corpus))
            self._corpora[corpus.hash] = expanded_corpus(corpus, work.results, writer.before)
        return self._corpora[corpus.hash]


def refuse_idle(options: Mapping[str, Any]) -> None:
    """UserError for one of OF_QUERIES that is given where nothing is written for queries."""
    for name, usual in OF_QUERIES.items():
        if (given := options.get(name, usual)) != usual:
            remedy = f"leave it {'null' if usual is None else usual}, or give expand.writer, as expand=pseudo_document does"
            raise UserError(f"expand.{name}={given}: nothing is written for queries; {remedy}")


def writer_of(documents: str | None, config: Mapping[str, Any]) -> PassageWriter | None:
    """Who writes for passages, by the options `documents` and `document_writer` of `ByLLM`; None for nobody."""
    if documents is None:
        return None
    if documents not in FORMS and not Path(documents).is_file():
        raise UserError(f"expand.documents={documents!r}; allowed: {', '.join(FORMS)}, a YAML file of a prompt, or null")
    template = f"passage_{documents}" if documents in FORMS else documents
    before = documents == "abstract" if config.get("before") is None else config["before"]
    writer: PassageWriter = hydra.utils.instantiate(
        {"_target_": f"{PassageWriter.__module__}.PassageWriter", **config, "template": template, "before": before}
    )
    return writer
