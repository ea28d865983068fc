"""A curriculum of any label sources, each stage with its own settings."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from uar.errors import UserError
from uar.labels.other_positives import check_rule, with_other_positives
from uar.labels.source import LabelContext, LabelSource, Stage

SETTINGS = ("epochs", "positives", "learning_rate", "warmup", "loss", "batch_size", "passages_per_query", "candidates")


class Curriculum(LabelSource):
    """`stages`: by name, in order, a `source` and what its stage has of its own (`epochs`, `positives`, `learning_rate`,
    `warmup`, `loss`, `batch_size`, `passages_per_query`, `candidates`); null or absent is as in the rest of the run. A stage
    that is null is left out. `other_positives`: what a stage makes of the positives of those before it, see
    `with_other_positives`."""

    def __init__(self, stages: Mapping[str, Mapping[str, Any] | None], other_positives: str = "ignore") -> None:
        check_rule(other_positives)
        self._other_positives = other_positives
        self._settings = {name: settings for name, settings in stages.items() if settings}
        if not self._settings:
            raise UserError("label_source.stages is empty; add one with +label_source@label_source.stages.NAME.source=CHOICE")
        for name, settings in self._settings.items():
            wrong = sorted(set(settings) - {"source", *SETTINGS})
            if wrong or not isinstance(settings.get("source"), LabelSource):
                fault = f"has no setting {wrong[0]!r}" if wrong else "has no source"
                raise UserError(f"label_source.stages.{name} {fault}; a stage has source, {', '.join(SETTINGS)}")

    def stages(self, context: LabelContext) -> list[Stage]:
        found = []
        for name, settings in self._settings.items():
            own = {k: v for k, v in settings.items() if k in SETTINGS and v is not None}
            stages = settings["source"].stages(context)
            found += [replace(s, **own, name=name if len(stages) == 1 else f"{name}-{s.name}") for s in stages]
        return with_other_positives(found, self._other_positives, context.collection.queries)
