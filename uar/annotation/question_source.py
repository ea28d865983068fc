"""Where the questions of an annotate run come from: the collection, or somebody who writes them first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from uar.collections import Collection, resolve
from uar.llm.costs.ledger import Prices
from uar.llm.engines.work import Work


@dataclass(frozen=True)
class Setting:
    """What an annotate run knows: its split, which may be null, and folder, the config of its model, the store, the seed,
    the plain options of its questions, the language of its passages, and what counts of the questions that are there already:
    from which grade on a passage is positive, and files of answers, as `open_training_split` takes them."""

    split: str | None
    path: str | None
    llm: Mapping[str, Any]
    store: Path
    seed: int
    options: Mapping[str, Any]
    language: str = "auto"
    positive_grade: int | None = None
    answers: Mapping[str, str] | str | None = None

    @property
    def reference(self) -> str:
        """Of the split, or of one of the corpus that need not exist."""
        return str(resolve(self.split or "train", self.path))


class Writing(Protocol):
    """Questions on their way. `work`: what asks for them; `missing`: calls of it that the store cannot answer."""

    work: Work
    missing: int

    def write(self, shard: str | None, prices: Prices, folder: Path) -> None:
        """Ask for what the store does not hold; failures go to the run folder. UserError where it cannot go on."""

    def collection(self) -> tuple[Collection, dict[str, Any]]:
        """The questions that were kept as a collection, and the counts for the ledger."""


class QuestionSource(Protocol):
    """What `questions=` instantiates."""

    def writing(self, setting: Setting) -> Writing | None:
        """None where the collection's own questions are taken."""
