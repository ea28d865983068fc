"""RAG from its config: what can be wrong is told before anything is retrieved."""

import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from uar.errors import MissingModel, UserError
from uar.evaluation.rag.answer_measures import open_measures
from uar.evaluation.rag.bert_score import BertScore
from uar.evaluation.rag.rag_settings import Settings
from uar.evaluation.rag.score import Rag
from uar.evaluation.rag.shown_passages import budgets
from uar.llm.models import LLM, identity_of
from uar.llm.prompts import load_chat

log = logging.getLogger(__name__)


class Generator:
    """The LLM of `cfg`, made when it is first asked for; where it or its package is not installed, this is told once and there
    is none. UserError for options that are wrong."""

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self._llm: LLM | None = None
        self._missing = False

    def __call__(self) -> LLM | None:
        if self._llm is None and not self._missing:
            try:
                self._llm = LLM(identity_of(self._cfg), hydra.utils.instantiate(self._cfg, _convert_="all"))
            except (InstantiationException, UserError) as error:
                cause = error.__cause__ if isinstance(error, InstantiationException) else error
                if not isinstance(cause, UserError) or not _is_missing(cause):
                    raise
                log.warning("No RAG scores, since the generator is not there: %s", cause)
                self._missing = True
        return self._llm

    def close(self) -> None:
        if self._llm is not None and self._llm.model is not None:
            self._llm.model.close()


def _is_missing(error: BaseException | None) -> bool:
    """Whether a package or a model that is not there is behind an error."""
    return error is not None and (isinstance(error, MissingModel | ImportError | OSError) or _is_missing(error.__cause__))


def open_rag(cfg: DictConfig, generator: Callable[[], LLM | None], store: Path, folder: Path) -> Rag:
    """`cfg` is one of conf/rag."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    settings = Settings(**{f.name: plain[f.name] for f in fields(Settings)})
    named = plain["measures"]
    measures = open_measures([named] if isinstance(named, str) else named, lambda: BertScore(**plain["bert_score"]))
    counts = plain["tokenizer"] or (plain["llm"]["model"] if settings.max_tokens is not None else None)
    units = budgets(settings.max_words, settings.max_tokens, counts)
    reader, rewriter, verifier = (hydra.utils.instantiate(cfg[name]) for name in ("reader", "rewriter", "verifier"))
    load_chat(reader.template, frozenset({"query", "passages"}))
    load_chat(reader.closed_book_template, frozenset({"query"}))
    for asks, again in ((rewriter, settings.rewrite), (verifier, settings.verify)):
        if again:
            asks.prompt  # noqa: B018 a prompt that cannot be read is told here
    return Rag(settings, measures, reader, rewriter, verifier, units, generator, store, folder)
