"""Asking in this process."""

from collections.abc import Mapping, Sequence
from typing import Any

import hydra

from uar.llm.engines.work import Report, Work, ask
from uar.llm.models import LLM, Engine
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
        engines: list[Engine] = []
        try:
            if work.asker.needs_llm:
                engines.extend(hydra.utils.instantiate(llm, _convert_="all") for llm in work.llms)
            llms = [LLM(model, engine) for model, engine in zip(work.models, engines, strict=True)]
            work.serves.update({llm.name: engine.serves() for llm, engine in zip(llms, engines, strict=True)})
            with work.timed():
                ask(work, store, llms, report)
        finally:
            store.close()
            for engine in engines:
                engine.close()
