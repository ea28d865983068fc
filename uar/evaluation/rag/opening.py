"""RAG from its config: what can be wrong is told before anything is retrieved."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from uar.errors import MissingModel, UserError
from uar.evaluation.rag.answer_measures import BERT, MEASURES, open_measures
from uar.evaluation.rag.bert_score import BertScore
from uar.evaluation.rag.judges.judge import Judge
from uar.evaluation.rag.rag_settings import CLOSED_BOOK, RETRIEVED, Settings
from uar.evaluation.rag.score import Asks, Rag
from uar.evaluation.rag.shown_passages import budgets
from uar.llm.costs.discount import prices_of_one
from uar.llm.models import LLM, identity_of
from uar.llm.prompts import load_chat

log = logging.getLogger(__name__)


class Generator:
    """The LLM of `cfg`, made when it is first asked for; where it or its package is not installed, this is told once, as
    `without` says, and there is none. UserError for options that are wrong."""

    def __init__(self, cfg: DictConfig, without: str = "No RAG scores, since the generator is not there") -> None:
        self._cfg, self._without = cfg, without
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
                log.warning("%s: %s", self._without, cause)
                self._missing = True
        return self._llm

    def close(self) -> None:
        if self._llm is not None and self._llm.model is not None:
            self._llm.model.close()
        self._llm = None


def _is_missing(error: BaseException | None) -> bool:
    """Whether a package or a model that is not there is behind an error."""
    return error is not None and (isinstance(error, MissingModel | ImportError | OSError) or _is_missing(error.__cause__))


class Generators:
    """The LLMs of one of conf/rag: the one that answers, and the one that judges answers, which may be the same."""

    def __init__(self, cfg: DictConfig) -> None:
        self.reader = Generator(cfg.llm)
        self.judge = Generator(cfg.judge, "No judged measures, since the judge is not there") if cfg.judge else self.reader

    def close(self) -> None:
        self.reader.close()
        if self.judge is not self.reader:
            self.judge.close()


def open_rag(cfg: DictConfig, generators: Generators, store: Path, folder: Path) -> Rag:
    """`cfg` is one of conf/rag."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    settings = Settings(**{f.name: plain[f.name] for f in fields(Settings)})
    names = [plain["measures"]] if isinstance(plain["measures"], str) else list(dict.fromkeys(plain["measures"]))
    kinds = {name: measures_of(f"rag.judges.{name}", judge) for name, judge in plain["judges"].items()}
    judged = [measure for measures in kinds.values() for measure in measures]
    twice = [name for name, number in Counter([*judged, *MEASURES, BERT]).items() if number > 1]
    if twice:
        raise UserError(f"rag.judges: {twice[0]} is the name of two measures; give the judge of your own another name for it")
    measures = open_measures(names, lambda: BertScore(**plain["bert_score"]), judged)
    judges = {name: hydra.utils.instantiate(cfg.judges[name]) for name in kinds if set(kinds[name]) & set(names)}
    counts = plain["tokenizer"] or (plain["llm"]["model"] if settings.max_tokens is not None else None)
    units = budgets(settings.max_words, settings.max_tokens, counts)
    checking = "verifier" if settings.query == "better" else "missing"
    reader, rewriter, verifier = (hydra.utils.instantiate(cfg[name]) for name in ("reader", "rewriter", checking))
    selector = hydra.utils.instantiate(cfg.selector) if settings.select else None
    load_chat(reader.template, frozenset({"query", "passages"}))
    load_chat(reader.closed_book_template, frozenset({"query"}))
    for judge in judges.values():
        wanted = ", ".join(m for m in names if m in judge.measures)
        if judge.needs_passages and set(settings.lines) == {CLOSED_BOOK}:
            raise UserError(
                f"rag.measures: {wanted}: it needs passages, and a closed book has none; add {RETRIEVED} to rag.lines"
            )
        if judge.needs_citations and not reader.cites:
            raise UserError(
                f"rag.measures: {wanted}: the prompt {reader.template} shows passages without numbers to cite; give "
                "rag=cited, or a rag.reader.template that shows them as [1], [2], ..."
            )
    asks = Asks(reader, rewriter, verifier, selector, judges)
    prices = prices_of_one(plain["price"], plain["llm"])
    return Rag(settings, measures, [n for n in names if n in judged], asks, units, generators, prices, store, folder)


def measures_of(option: str, judge: Mapping[str, Any]) -> tuple[str, ...]:
    """What the judge of a config measures; UserError where it names none."""
    target = judge.get("_target_")
    try:
        found = hydra.utils.get_class(target) if target else None
    except Exception as error:  # whatever a module of one's own raises
        raise UserError(f"{option}._target_={target}: it cannot be imported ({str(error).splitlines()[0]})") from error
    if found is None or not issubclass(found, Judge):
        raise UserError(f"{option}._target_={target}: a class that extends {Judge.__module__}.Judge is needed")
    return found.measures
