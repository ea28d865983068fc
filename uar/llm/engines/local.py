"""Asking in this process."""

from collections.abc import Mapping, Sequence
from typing import Any

import hydra

from uar.llm.engines.work import Report, Work, ask
from uar.llm.models import LLM, Model
from uar.llm.store.store import Store


class LocalEngine:
    """Models are loaded, or servers asked, by this process."""

    @classmethod
    def gpus(cls, config: Mapping[str, Any], of_models: Sequence[float]) -> float:
        """GPUs that a run holds whose models work on so many each: those of one process share them."""
        return max(of_models, default=0)

    def run(self, work: Work, report: Report) -> None:
        """Ask what the store does not hold; UserError where it cannot go on, with what was answered kept and in the work."""
        store = Store(work.store)
        models: list[Model] = []
        try:
            models.extend(hydra.utils.instantiate(llm, _convert_="all") for llm in work.llms)
            llms = [LLM(name, one) for name, one in zip(work.models, models, strict=True)]
            work.serves.update({llm.name: one.serves() for llm, one in zip(llms, models, strict=True)})
            with work.timed():
                ask(work, store, llms, report)
        finally:
            store.close()
            for one in models:
                one.close()
