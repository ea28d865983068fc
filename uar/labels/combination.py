"""What makes one judgement of a passage out of those of several annotators."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from uar.annotation.judgement import Judged
from uar.labels.source import LabelContext


class Combination(ABC):
    """`takes_one`: whether it changes the judgements of a single annotator too."""

    takes_one = False

    @abstractmethod
    def combine(self, judged: Mapping[str, Judged], context: LabelContext) -> tuple[Judged, dict[str, Any] | None]:
        """`judged`: by name of the annotator, its judgements. The joint ones, and what the manifest says of how they were
        made. `context.judgements` gives the votes of the majority."""
