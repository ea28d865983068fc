"""What the annotators that show one passage a call share."""

from dataclasses import dataclass

from uar.annotation.annotators.annotator import OnePrompt, Shown
from uar.annotation.annotators.scored import pools_together


@dataclass(frozen=True)
class PassageWise(OnePrompt):
    """Passages are judged one by one, so that pools add up."""

    def annotated_pools(self, shown: Shown) -> dict[str, list[str]]:
        return pools_together(shown)
