"""What the annotators that show one passage a call share."""

from dataclasses import dataclass

from uar.annotation.annotators.annotator import Annotator
from uar.llm.prompted import OnePrompt


@dataclass(frozen=True)
class PassageWise(OnePrompt, Annotator):
    """Passages are judged one by one, so that pools add up."""

    @property
    def passage_wise(self) -> bool:
        return True
