"""Asking in this process."""

import hydra

from uar.llm.engines.work import Report, Work, ask
from uar.llm.models import LLM, Engine
from uar.llm.store.store import Store


class LocalEngine:
    """Models are loaded, or servers asked, by this process."""

    def run(self, work: Work, report: Report) -> None:
        """Ask what the store does not hold; UserError where it cannot go on, with what was answered kept and in the work."""
        store = Store(work.store)
        engines: list[Engine] = []
        try:
            if work.asker.needs_llm:
                engines.extend(hydra.utils.instantiate(llm, _convert_="all") for llm in work.llms)
            llms = [LLM(model, engine) for model, engine in zip(work.models, engines, strict=True)]
            with work.timed():
                ask(work, store, llms, report)
        finally:
            store.close()
            for engine in engines:
                engine.close()
