"""What the annotators that show one passage a call share."""

from dataclasses import dataclass

from uar.annotation.annotators.guided import GuidedPrompt


@dataclass(frozen=True)
class PassageWise(GuidedPrompt):
    """Passages are judged one by one, so that pools add up."""

    @property
    def passage_wise(self) -> bool:
        return True
