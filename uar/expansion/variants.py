"""Other wordings of training questions: by rule, or as an LLM words them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import hydra

from uar.collections import Collection
from uar.errors import UserError
from uar.expansion.perturbations import check_kinds, perturbed
from uar.expansion.query_texts import QueryWriter, with_texts
from uar.llm.one_model import OneModel
from uar.llm.pooled import PooledQuestions
from uar.retrievers.session import Session

log = logging.getLogger(__name__)


class Variants(Protocol):
    """What `variants=NAME` instantiates."""

    def texts(
        self, collection: Collection, query_ids: Sequence[str], number: int, folder: Path | None
    ) -> dict[str, list[str]]:
        """`number` wordings of each query besides its own. `folder`: of the run, for what they cost; None where
        another process tells it."""


class RuleVariants:
    """By the rules of `kinds` in turn; from the second turn on they draw otherwise."""

    def __init__(self, kinds: Sequence[str], seed: int) -> None:
        self._kinds, self._seed = check_kinds(kinds, "variants.kinds"), seed
        if not self._kinds:
            raise UserError("variants.kinds is empty; name at least one, such as variants.kinds=[typos]")

    def texts(
        self, collection: Collection, query_ids: Sequence[str], number: int, folder: Path | None
    ) -> dict[str, list[str]]:
        turns = [divmod(n, len(self._kinds)) for n in range(number)]
        each = [perturbed(collection, query_ids, self._kinds[kind], self._seed + turn) for turn, kind in turns]
        return {q: [texts[q] for texts in each] for q in query_ids}


class WrittenVariants:
    """As an LLM words them, one call each, each with the next seed from `writer.sample` on. `writer`, `llm`: configs; the
    other options are those of `OneModel`. A query of which a call failed stands there in its own words, and how many do is
    said."""

    def __init__(
        self,
        writer: Mapping[str, Any],
        llm: Mapping[str, Any],
        store: str,
        max_failure_rate: float = 0.05,
        retry_failures: Sequence[str] = (),
        price: Mapping[str, Any] | None = None,
    ) -> None:
        self._writer: QueryWriter = hydra.utils.instantiate(writer, _convert_="all")
        if self._writer.temperature <= 0:
            raise UserError("variants.writer.temperature=0 would write the same text again and again; give one above 0")
        self._model = OneModel("variants", llm, store, max_failure_rate, retry_failures, price)

    def texts(
        self, collection: Collection, query_ids: Sequence[str], number: int, folder: Path | None
    ) -> dict[str, list[str]]:
        own = with_texts(collection, {q: collection.queries[q].text for q in query_ids})
        questions = PooledQuestions(own, dict.fromkeys(query_ids, ()))
        found: dict[str, list[str]] = {q: [] for q in query_ids}
        failed = 0
        with Session(_no_search, folder=folder) as session:
            self._model.opened(session)
            for sample in range(number):
                work = self._model.ask(
                    replace(self._writer, sample=self._writer.sample + sample), questions, "variants", self._model.name
                )
                failed += len(work.failed)
                for query_id, texts in found.items():
                    texts.append(work.results.get(query_id) or collection.queries[query_id].text)
        if failed:
            line = "%s: calls failed: %d of %d variants are the question itself"
            log.warning(line, collection.slug, failed, number * len(found))
        return found


def _no_search() -> Any:
    raise TypeError("nothing is searched while variants are written")
